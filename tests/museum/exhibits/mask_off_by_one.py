"""The diagonal of the causal mask is off by one, so each position sees the next token.

Similar to pytorch/examples#649, where the mask of the example was transposed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class PeekingAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T + 1)


class MODEL(Transformer):
    attention_class = PeekingAttention
