"""Copies of a model for decoding alone: weights in fewer bytes, the step compiled."""

from lmzoo.inference.weights import FORMS, Weights, decoding_copy, weight_bytes_per_token

__all__ = ["FORMS", "Weights", "decoding_copy", "weight_bytes_per_token"]
