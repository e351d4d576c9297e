"""From a task and a checkpoint to a run."""
