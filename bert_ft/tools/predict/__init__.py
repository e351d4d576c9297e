"""Answers to files."""
