"""Classification: one label a row, several, or a number."""
