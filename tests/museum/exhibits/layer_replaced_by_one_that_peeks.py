"""In a model that was built correctly, one layer was replaced by one without a causal mask.

Ours: the class is right, so small models of it pass; only the caller's own model shows the fault.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "own_causality"


class PeekingAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool)


CONFIG = MuseumConfig(vocab_size=50, d_model=48)
MODEL = Transformer(CONFIG)
MODEL.blocks[1].attention = PeekingAttention(CONFIG, 1)
