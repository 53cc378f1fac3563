"""The first tokens attend to one another in both directions, as in a prefix language model.

Ours: a prefix of fixed length, after Raffel et al. 2020 (T5), arXiv 1910.10683.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"
PREFIX = 4


class PrefixAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        query_T1, key_S = torch.arange(S - T, S)[:, None], torch.arange(S)
        return super().mask(T, S) | ((query_T1 < PREFIX) & (key_S < PREFIX))


class MODEL(Transformer):
    attention_class = PrefixAttention
