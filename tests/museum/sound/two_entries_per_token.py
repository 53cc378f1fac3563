"""Each token appends two entries to the cache: a key and value of its own, and one of a learned memory beside it.

Ours: a time buffer need not grow by one entry per token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.state import TimeBuffer
from tests.museum.base import MuseumConfig, PositionlessAttention, Transformer


class PairAttention(PositionlessAttention):
    """Keys and values are split into two half tokens, which stand one after the other in the cache."""

    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.more = Linear(config.d_model, 2 * config.d_model, bias=False)

    def flops(self, T: int) -> float:
        return 2 * super().flops(T)

    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        window = None if self.config.window is None else 2 * self.config.window
        options = {"window": window, "device": like.device, "dtype": like.dtype}
        return [TimeBuffer.empty(B, 2 * max_len, H, K, **options) for _ in "kv"]

    def mask(self, T: int, S: int) -> Tensor:
        return super().mask(T, S // 2).repeat_interleave(2, dim=1)

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        B, T, D = x_BTD.shape
        H = self.config.n_heads
        q_BTHK, *first = self.qkv(x_BTD).view(B, T, 3, H, D // H).unbind(2)
        second = self.more(x_BTD).view(B, T, 2, H, D // H).unbind(2)
        k, v = (torch.stack(pair, dim=2).flatten(1, 2) for pair in zip(first, second, strict=True))
        if cache is not None:
            k, v, cache = self.remember(cache, k, v)
        return self.out(self.attend(q_BTHK, k, v, self.mask(T, k.shape[1]))), cache


class MODEL(Transformer):
    attention_class = PairAttention
