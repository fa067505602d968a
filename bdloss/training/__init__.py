"""From an experiment to a model: settings, stages, checkpoints, the search of w."""
