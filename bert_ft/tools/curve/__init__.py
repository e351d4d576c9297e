"""How many labels are enough: scores by rows of training."""
