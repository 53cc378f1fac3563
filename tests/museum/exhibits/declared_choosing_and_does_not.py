"""Traits says that the model chooses, but it attends to all keys.

Ours: a declaration left over from an earlier version would excuse differences in bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.choosing import Choosing, ChoosingAttention

CAUGHT_BY = "long_precision"


class DenseAttention(ChoosingAttention):
    def choose(self, scores_BTS: Tensor, allowed_TS: Tensor) -> Tensor:
        return allowed_TS & torch.ones_like(scores_BTS, dtype=torch.bool)


class MODEL(Choosing):
    attention_class = DenseAttention
