"""One file a format: each turns a file into rows of words with tags, or of text with character spans, and
says what it left out."""
