"""Runs to be made, and who makes them."""
