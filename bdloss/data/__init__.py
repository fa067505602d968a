"""From scenes to batches of patches."""
