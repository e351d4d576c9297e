"""The run folder: its files, its name, the environment that it records."""
