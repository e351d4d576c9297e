"""Vectors of texts and of their words, from an encoder's hidden states."""
