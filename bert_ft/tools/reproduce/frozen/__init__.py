"""Published numbers of a frozen encoder, measured again."""
