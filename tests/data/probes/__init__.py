"""Tests of the generators of probes, by brute force."""
