"""What a TOML file can say: the schema, tasks, and the catalog of the built-in ones."""
