"""A checkpoint becomes a model: loading, its tokenizer, its head, saving."""
