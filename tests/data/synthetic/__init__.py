"""Tests of the synthetic sources."""
