"""Experiments: training, prediction, evaluation, reports."""
