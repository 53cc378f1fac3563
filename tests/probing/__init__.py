"""Tests of training on probes."""
