"""lmzoo models in the Language Model Evaluation Harness (package `lm_eval`): `--model lmzoo`, and tasks of our own.

Importing `lmzoo.harness.adapter` makes the name "lmzoo" known to `lm_eval`, which has no entry point for this.
"""
