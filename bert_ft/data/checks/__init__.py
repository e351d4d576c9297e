"""What is wrong with rows, found before training."""
