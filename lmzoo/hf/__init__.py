"""Hugging Face checkpoints: one map of weight names per family, as data, and the function that applies it."""
