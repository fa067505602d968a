"""Predictions against ground truth: scores, where they are wrong, gaps."""
