"""Every token attends to all others, as in a masked diffusion language model, which fills in any position.

Ours: the smallest form of Sahoo et al. 2024, arXiv 2406.07524.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class BothWays(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool)


class MODEL(Transformer):
    attention_class = BothWays
