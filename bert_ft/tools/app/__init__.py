"""A page on this machine to try a model in."""
