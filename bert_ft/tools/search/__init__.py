"""Hyperparameters, searched."""
