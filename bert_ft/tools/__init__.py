"""What stands on the rest of the house, a module each."""
