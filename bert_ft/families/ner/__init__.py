"""Named entity recognition: a tag a word."""
