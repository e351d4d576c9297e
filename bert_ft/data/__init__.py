"""From files, hub ids and Python objects to canonical rows."""
