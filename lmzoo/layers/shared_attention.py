"""Attention whose weights several depths share (Zamba: Glorioso et al. 2024, arXiv 2405.16712).

Legend: B batch, T time, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm

EMBEDDED = "embedded tokens"  # in `Context.carry`: the input of the first block, (B, T, D)


class SharedAttention(Layer):
    """Attention over the features beside the embedded tokens, 2 D wide; each depth has an output map and a cache.

    The embedded tokens, which the model leaves in `ctx.carry`, tell the shared weights what the token was at any depth.
    """

    reach = None

    def __init__(self, d_model: int, n_heads: int, *, n_kv_heads: int | None = None, rope: Rope | None = None) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.attention = Attention(2 * d_model, n_heads, n_kv_heads=n_kv_heads, rope=rope)
        self.out = Linear(2 * d_model, d_model, bias=False)

    def share(self, first: SharedAttention) -> None:
        """Uses the weights of `first`, except for the output map."""
        self.norm, self.attention = first.norm, first.attention

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> KVCache:
        """Returns the empty cache of this depth."""
        return self.attention.init_state(batch_size, max_len, like)

    def forward(self, x_BTD: Tensor, state: KVCache | None, ctx: Context) -> tuple[Tensor, KVCache | None]:
        both_BTX = torch.cat([x_BTD, self.norm(ctx.carry[EMBEDDED]).to(x_BTD.dtype)], dim=-1)
        y_BTX, state = self.attention(both_BTX, state, ctx)
        return self.out(y_BTX), state
