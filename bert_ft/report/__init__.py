"""What a run shows of itself, from its folder alone: one HTML page, its charts, its model card."""
