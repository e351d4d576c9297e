"""What stands on finished runs and could be deleted without the rest noticing: a module each."""
