"""Stress tests: real kills, signals, disk errors and damage; `scripts/stress` runs all, the tests a part."""
