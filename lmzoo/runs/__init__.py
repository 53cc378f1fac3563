"""A run directory: its settings, lock, metrics and checkpoints; making a run, resuming it and reading it."""
