"""A transformer block whose weights several depths share (Zamba 2: Glorioso et al. 2024, arXiv 2411.15242).

Legend: B batch, T time, D model width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.adapted import Adapted
from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.shared_attention import EMBEDDED


class SharedBlock(Layer):
    """Attention over the features beside the embedded tokens, 2 D wide, then a gated feed-forward layer, D wide.

    The embedded tokens are what the model leaves in `ctx.carry`. Each depth has an output map, a cache, and low-rank
    maps of the rank `adapter_rank` beside gate and up, and with `adapts_attention` also beside query, key and value.
    Scores are divided by the root of half of a head's width.
    """

    reach = None
    attention: Any  # an `Attention` whose projection may be `Adapted`
    mlp: Any  # an `MLP` whose first projection is `Adapted`

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_ff: int,
        *,
        adapter_rank: int,
        adapts_attention: bool = False,
        n_kv_heads: int | None = None,
        rope: Rope | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        scale = math.sqrt(n_heads / d_model)
        attention: Any = Attention(2 * d_model, n_heads, n_kv_heads=n_kv_heads, rope=rope, scale=scale)
        attention.out = Linear(2 * d_model, d_model, bias=False)  # narrower than its input
        if adapts_attention:
            attention.qkv = Adapted(attention.qkv, adapter_rank, parts=3)
        mlp: Any = MLP(d_model, d_ff, F.gelu)
        mlp.up = Adapted(mlp.up, adapter_rank)
        self.norm, self.attention = RMSNorm(2 * d_model, norm_eps), attention
        self.mlp_norm, self.mlp = RMSNorm(d_model, norm_eps), mlp
        self.out = Linear(d_model, d_model, bias=False)

    def share(self, first: SharedBlock) -> None:
        """Uses the weights of `first`, except for the low-rank maps and the output map."""
        self.norm, self.mlp_norm = first.norm, first.mlp_norm
        self.attention.out, self.mlp.down = first.attention.out, first.mlp.down
        self.mlp.up.base = first.mlp.up.base
        if isinstance(self.attention.qkv, Adapted):
            self.attention.qkv.base = first.attention.qkv.base
        else:
            self.attention.qkv = first.attention.qkv

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> KVCache:
        """Returns the empty cache of this depth."""
        return self.attention.init_state(batch_size, max_len, like)

    def forward(self, x_BTD: Tensor, state: KVCache | None, ctx: Context) -> tuple[Tensor, KVCache | None]:
        both_BTX = torch.cat([x_BTD, ctx.carry[EMBEDDED].to(x_BTD.dtype)], dim=-1)
        y_BTD, state = self.attention(self.norm(both_BTX), state, ctx)
        return self.out(self.mlp(self.mlp_norm(y_BTD))), state
