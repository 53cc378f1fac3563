"""The causal mask is made without a device, so it lies on the CPU: the model cannot run on a GPU.

Ours: the models of this museum did it, and nobody saw it on machines without a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "meta_device"


class LocalMaskAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return torch.ones(T, S, dtype=torch.bool).tril(S - T)


class MODEL(Transformer):
    attention_class = LocalMaskAttention
