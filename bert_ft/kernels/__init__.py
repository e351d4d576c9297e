"""Faster ways to compute the same network: each a context around it, with a check and one line of reason."""
