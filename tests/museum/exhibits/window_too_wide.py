"""A sliding window is one token wider than declared.

huggingface/transformers#39408, ml-explore/mlx-lm#390.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "receptive_field"


class WideAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        behind_TS = torch.arange(S - T, S)[:, None] - torch.arange(S)
        window = self.config.window
        return (behind_TS >= 0) & (behind_TS <= (S if window is None else window))


class MODEL(Transformer):
    attention_class = WideAttention
