"""For more than 64 tokens the causal mask is made of blocks of 64, so a token sees later ones of its block.

Similar to Dao-AILab/flash-attention#436 (blocks on the diagonal, which need a mask of their own).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_causality"


class BlockAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        if T <= 64:
            return super().mask(T, S)
        return torch.arange(S - T, S)[:, None] // 64 >= torch.arange(S) // 64


class MODEL(Transformer):
    attention_class = BlockAttention
