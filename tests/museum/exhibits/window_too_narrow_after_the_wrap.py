"""Once the window is full, decoding keeps one key too few.

huggingface/transformers#47708 (the rolling buffer's index is off by one on wraparound).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"


class NarrowingAttention(Attention):
    def remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
        full = cache[0].length >= (self.config.window or cache[0].length + 1)
        k, v, after = super().remember(cache, k, v)
        return (k[:, 2:], v[:, 2:], after) if full else (k, v, after)


class MODEL(Transformer):
    attention_class = NarrowingAttention
