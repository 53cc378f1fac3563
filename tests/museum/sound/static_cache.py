"""A cache that is a plain tensor with room for `max_len` entries, which doubles when it is full.

Similar to huggingface/transformers#27931 (a static cache, so that shapes do not change between steps).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.model import Traits
from tests.museum.base import Attention, Transformer


class StaticAttention(Attention):
    """The cache holds a number of entries and two tensors (B, capacity, H, K); the entries after it are zeros."""

    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        return {"length": 0, "kv": [like.new_zeros(B, max(max_len, 1), H, K) for _ in "kv"]}

    def remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
        length, after = cache["length"], []
        end = length + k.shape[1]
        for old, new in zip(cache["kv"], (k, v), strict=True):
            capacity = old.shape[1]
            while capacity < end:
                capacity *= 2
            longer = F.pad(old, (0, 0, 0, 0, 0, capacity - old.shape[1]))
            after.append(torch.cat([longer[:, :length], new, longer[:, end:]], dim=1))
        window = self.config.window
        start = 0 if window is None else max(0, length - window)  # the first new token sees `window` keys
        return after[0][:, start:end], after[1][:, start:end], {"length": end, "kv": after}


class MODEL(Transformer):
    attention_class = StaticAttention

    @property
    def traits(self) -> Traits:
        return replace(super().traits, state_growth="linear")  # with a window too: nothing is dropped
