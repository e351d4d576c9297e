"""The pages of a run: its report and its model card."""
