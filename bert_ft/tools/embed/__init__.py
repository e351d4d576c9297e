"""Vectors of the rows of a file."""
