"""Training and inference. The engine knows the adapter protocol and no family."""
