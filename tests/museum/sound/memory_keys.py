"""Each layer has learned keys and values beside those of the tokens, which every token may attend to.

Persistent memory (Sukhbaatar et al. 2019, arXiv 1907.01470).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lmzoo.layers.init import is_deferred
from tests.museum.base import Attention, MuseumConfig, Transformer

SLOTS = 3


class MemoryAttention(Attention):
    parameter_roles: ClassVar[dict[str, str]] = {"memory_2MHK": "vector"}

    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        K = config.d_model // config.n_heads
        self.memory_2MHK = nn.Parameter(torch.empty(2, SLOTS, config.n_heads, K))
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.memory_2MHK, std=0.1, generator=generator)

    def flops(self, T: int) -> float:
        return super().flops(T + SLOTS)

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        k, v = (
            torch.cat([memory.to(x.dtype).expand(len(x), -1, -1, -1), x], dim=1)
            for memory, x in zip(self.memory_2MHK, (k_BSHK, v_BSHK), strict=True)
        )
        allowed_TS = torch.cat([allowed_TS.new_ones(len(allowed_TS), SLOTS), allowed_TS], dim=1)
        return super().attend(q_BTHK, k, v, allowed_TS)


class MODEL(Transformer):
    attention_class = MemoryAttention
