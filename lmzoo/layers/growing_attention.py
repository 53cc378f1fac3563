"""Attention whose queries grow with their position. Legend as in `lmzoo.layers.attention`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context
from lmzoo.ops.precision import wide_dtype


class GrowingAttention(Attention):
    """`Attention` whose queries at position t have the factor `1 + growth ln(1 + floor(t / length))`.

    In a long text a softmax over more keys is flatter, which the factor counteracts (Nakanishi 2025, arXiv 2501.19399;
    in Llama 4 and Ministral 3). Up to `length` tokens it is 1. `options` are those of `Attention`.
    """

    def __init__(self, d_model: int, n_heads: int, *, growth: float, length: int, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        self.growth, self.length = growth, length

    def project(self, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries (B, T, H, K), keys and values (B, T, G, K) of the new tokens."""
        q_BTHK, k_BTGK, v_BTGK = super().project(x_BTD, ctx)
        lengths_T = (ctx.positions_T // self.length).to(wide_dtype(q_BTHK.dtype))
        factor_T = (1 + self.growth * lengths_T.log1p()).to(q_BTHK.dtype)
        return q_BTHK * factor_T[:, None, None], k_BTGK, v_BTGK
