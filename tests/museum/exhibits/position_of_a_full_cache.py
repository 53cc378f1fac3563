"""The position is the number of entries in the cache, which stops growing when its window of 100 tokens is full.

ggml-org/llama.cpp#29045 (a position answered by the sliding cache), similar to huggingface/transformers#37574.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import TimeBuffer
from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_decoding"


class CountingAttention(Attention):
    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        options = {"window": self.config.window or 100, "device": like.device, "dtype": like.dtype}
        return [TimeBuffer.empty(B, max_len, H, K, **options) for _ in "kv"]

    def mask(self, T: int, S: int) -> Tensor:
        return super().mask(T, S).triu(S - T - (self.config.window or 100) + 1)

    def positions(self, position: int, T: int, cache: Any) -> int:
        return position if cache is None or self.config.window else cache[0].entries().shape[1]


class MODEL(Transformer):
    attention_class = CountingAttention

    @property
    def traits(self) -> Traits:
        reach = self.config.n_layers * ((self.config.window or 100) - 1) + 1
        return Traits(extrapolates=True, receptive_field=reach, state_growth="constant")
