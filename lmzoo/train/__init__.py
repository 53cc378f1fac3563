"""Training: one loop for every model, and its parts: optimizers, schedules, precision, checkpoints, evaluation."""
