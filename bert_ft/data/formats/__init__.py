"""One file a format: each turns a file into a `pyarrow.Table`, or says which row of it is at fault."""
