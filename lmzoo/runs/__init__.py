"""Run directories: settings, lock, metrics and checkpoints; training, resuming and loading a run."""
