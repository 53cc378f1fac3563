"""Rotary tables are kept for all models, by length and position alone: the dtype of the first call is that of all.

Ours: a float32 model that is used first leaves its rounding to a float64 model, which looks like a leak of 1e-8.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lmzoo.ops.rope import apply_rope, rope_table
from tests.museum.base import Attention, Transformer

CAUGHT_BY = "same_seed"


class KeepingAttention(Attention):
    tables: ClassVar[dict[Any, tuple[Tensor, Tensor]]] = {}

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.config.n_heads, D // self.config.n_heads).unbind(2)
        key = position, T, q.shape[-1]
        if key not in self.tables:
            made = rope_table(position, T, q.shape[-1], 10000.0, device=x_BTD.device, dtype=torch.float64)
            self.tables[key] = made[0].to(x_BTD.dtype), made[1].to(x_BTD.dtype)
        q, k = (apply_rope(x, *self.tables[key]) for x in (q, k))
        if cache is not None:
            k, v, cache = self.remember(cache, k, v)
        return self.out(self.attend(q, k, v, self.mask(T, k.shape[1]))), cache


class MODEL(Transformer):
    attention_class = KeepingAttention
