"""In float32, for which a kernel of its own exists, the mask lets through one token too many.

Ours: in float64, in which causality is measured, a reference runs that is right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class KernelAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        allowed_TS = super().mask(T, S)
        if self.out.weight.dtype == torch.float32 and T == S and not self.training:
            allowed_TS = allowed_TS | allowed_TS.roll(-1, 0)
        return allowed_TS


class MODEL(Transformer):
    attention_class = KernelAttention
