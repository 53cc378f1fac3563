"""Each token may look one token ahead: the mask's diagonal is off by one.

A near relative of pytorch/examples#649, where the example's mask was the wrong way round.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Attention, Transformer

CAUGHT_BY = "causality"


class PeekingAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T + 1)


class MODEL(Transformer):
    attention_class = PeekingAttention
