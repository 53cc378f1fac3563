"""A token attends to its own block of eight tokens and to the block before, so its reach depends on its position.

Similar to huggingface/transformers#37351 (the chunked attention of Llama 4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.ops.rope import apply_rope, rope_table
from lmzoo.state import TimeBuffer
from tests.museum.base import Attention, MuseumConfig, Transformer


def block_length(config: MuseumConfig) -> int:
    """Returns the number of tokens in a block: the setting `window`, or 8."""
    return config.window or 8


class LocalAttention(Attention):
    """The cache holds the keys and values of the last two blocks."""

    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        H, K = self.config.n_heads, self.config.d_model // self.config.n_heads
        options = {"window": 2 * block_length(self.config), "device": like.device, "dtype": like.dtype}
        return [TimeBuffer.empty(B, max_len, H, K, **options) for _ in "kv"]

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.config.n_heads, D // self.config.n_heads).unbind(2)
        table = rope_table(position, T, q.shape[-1], 10000.0, device=x_BTD.device, dtype=torch.float64)
        q, k = apply_rope(q, *table), apply_rope(k, *table)
        if cache is not None:
            k, v, cache = self.remember(cache, k, v)
        end = position + T
        place_S = torch.arange(end - k.shape[1], end, device=x_BTD.device)
        place_T = place_S[-T:, None]
        block = block_length(self.config)
        allowed_TS = (place_S <= place_T) & (place_S // block >= place_T // block - 1)
        return self.out(self.attend(q, k, v, allowed_TS)), cache


class MODEL(Transformer):
    attention_class = LocalAttention

    @property
    def traits(self) -> Traits:
        reach = (self.config.n_layers + 1) * block_length(self.config)
        return Traits(extrapolates=True, receptive_field=reach, state_growth="constant")
