"""Copies of a model for fast decoding: quantized weights and a compiled step."""

from lmzoo.inference.weights import (
    FORMS,
    Weights,
    decoding_copy,
    has_bfloat16_kernels,
    int8_share,
    weight_bytes_per_token,
)

__all__ = ["FORMS", "Weights", "decoding_copy", "has_bfloat16_kernels", "int8_share", "weight_bytes_per_token"]
