"""Runs that are killed, interrupted, refused and damaged for real; `scripts/stress` runs all, the tests a part."""
