"""Attention without a causal mask.

huggingface/transformers#48745 (four decoders saw the tokens after their own), keras-team/keras#23038 (the mask was
dropped with dropout above 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class BidirectionalAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool)


class MODEL(Transformer):
    attention_class = BidirectionalAttention
