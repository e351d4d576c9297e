"""Runs beside each other: differences, intervals, tests."""
