"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, arXiv 2405.04434).

Legend: B batch, T time, D model width, H heads, S keys; N features of a query or key without position, P rotated
features, K = N + P, V width of values, R rank of keys and values, C = R + P width of the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.offers import one_hot_values
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.rope import apply_rope
from lmzoo.state import TimeBuffer

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values -> results


class LatentAttention(Layer):
    """Attention whose cache is one short vector per token, from which the keys and values of all heads are computed.

    The vector has R features for keys and values, and P rotated features that all heads use as part of their keys: a
    rotated key cannot be computed from a cached vector by one matrix for all positions. Queries are also projected
    through `q_rank` features, unless it is None.

    It is computed in two forms. `expanded` computes keys and values from the cache. `absorbed` multiplies the queries
    by the matrix of the keys instead, and the result by the matrix of the values: it is attention with one key head
    that reads the cache as it is. It decodes a few tokens, for which it takes fewer operations.

    `sharpness` is a factor of the scores, which DeepSeek raises for texts longer than those of the training.
    """

    reach = None
    state_growth = "linear"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        kv_rank: int,
        nope_dim: int,
        rope_dim: int,
        v_dim: int,
        q_rank: int | None = None,
        rope: Rope = Rope(),  # noqa: B008 (frozen)
        sharpness: float = 1.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.n_heads, self.kv_rank, self.rope, self.sharpness = n_heads, kv_rank, rope, sharpness
        self.nope_dim, self.rope_dim, self.v_dim = nope_dim, rope_dim, v_dim
        self.head_dim = nope_dim + rope_dim
        self.q_down = None if q_rank is None else Linear(d_model, q_rank, bias=False)
        self.q_norm = None if q_rank is None else RMSNorm(q_rank, norm_eps)
        self.q = Linear(q_rank or d_model, n_heads * self.head_dim, bias=False)
        self.kv_down = Linear(d_model, kv_rank + rope_dim, bias=False)
        self.kv_norm = RMSNorm(kv_rank, norm_eps)
        self.kv_up = Linear(kv_rank, n_heads * (nope_dim + v_dim), bias=False)
        self.out = Linear(n_heads * v_dim, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> TimeBuffer:
        """Returns an empty cache (B, S, C) with memory for `max_len` tokens."""
        width = self.kv_rank + self.rope_dim
        return TimeBuffer.empty(batch_size, max_len, width, device=like.device, dtype=like.dtype)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token in the expanded form: two products, with keys and with values, over T keys."""
        return 2.0 * T * self.n_heads * (self.head_dim + self.v_dim)

    def forward(self, x_BTD: Tensor, state: TimeBuffer | None, ctx: Context) -> tuple[Tensor, TimeBuffer | None]:
        q_BTHK, cache_BTC = self.project(x_BTD, self.low(x_BTD), ctx)
        if state is None:
            return self.out(self.expanded(q_BTHK, cache_BTC).flatten(2)), None
        state = state.append(cache_BTC)
        attend = self.absorbed if self.absorbs(x_BTD.shape[1]) else self.expanded
        return self.out(attend(q_BTHK, state.entries().to(cache_BTC.dtype)).flatten(2)), state

    def low(self, x_BTD: Tensor) -> Tensor:
        """Returns the features from which queries are projected."""
        return x_BTD if self.q_down is None or self.q_norm is None else self.q_norm(self.q_down(x_BTD))

    def project(self, x_BTD: Tensor, low_BTQ: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Returns the queries and the entries of the cache of the new tokens; the last P features are rotated."""
        table = ctx.rope(self.rope, self.rope_dim)
        q_BTHN, q_BTHP = (
            self.q(low_BTQ).unflatten(-1, (self.n_heads, self.head_dim)).split([self.nope_dim, self.rope_dim], dim=-1)
        )
        latent_BTR, k_BTP = self.kv_down(x_BTD).split([self.kv_rank, self.rope_dim], dim=-1)
        rotated_BTXP = apply_rope(torch.cat([q_BTHP, k_BTP[:, :, None]], dim=2), *table)  # X = H + 1
        q_BTHP, k_BT1P = rotated_BTXP.split([self.n_heads, 1], dim=2)
        cache_BTC = torch.cat([self.kv_norm(latent_BTR), k_BT1P[:, :, 0]], dim=-1)
        q_BTHK = torch.cat([q_BTHN, q_BTHP], dim=-1)
        return q_BTHK if self.sharpness == 1 else self.sharpness * q_BTHK, cache_BTC

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights: what attention to one-hot values returns."""

        def weights(q_BTHK: Tensor, k_BSHK: Tensor, _: Tensor) -> Tensor:
            return causal_attention(q_BTHK, k_BSHK, one_hot_values(k_BSHK))

        return {"attention.weights": self.expanded(*self.project(x_BTD, self.low(x_BTD), ctx), weights)}

    def absorbs(self, T: int) -> bool:
        """True if the absorbed form takes fewer operations for T new tokens and many keys.

        For each key and head, its products are longer by 2 R - N - V per query; the expanded form multiplies the cache
        by a matrix (R, N + V).
        """
        width = self.nope_dim + self.v_dim
        return T * (2 * self.kv_rank - width) <= self.kv_rank * width

    def expanded(self, q_BTHK: Tensor, cache_BSC: Tensor, attend: Attend = causal_attention) -> Tensor:
        """Attends to keys and values that are computed from the cache. Returns (B, T, H, V)."""
        latent_BSR, k_BSP = cache_BSC.split([self.kv_rank, self.rope_dim], dim=-1)
        kv_BSHW = self.kv_up(latent_BSR).unflatten(-1, (self.n_heads, -1))
        k_BSHN, v_BSHV = kv_BSHW.split([self.nope_dim, self.v_dim], dim=-1)
        k_BSHP = k_BSP[:, :, None].expand(-1, -1, self.n_heads, -1)
        return attend(q_BTHK, torch.cat([k_BSHN, k_BSHP.to(k_BSHN.dtype)], dim=-1), v_BSHV)

    def absorbed(self, q_BTHK: Tensor, cache_BSC: Tensor, attend: Attend = causal_attention) -> Tensor:
        """Attends to the cache itself, as to one head of keys and values. Returns (B, T, H, V)."""
        up_HWR = self.kv_up.weight.to(q_BTHK.dtype).unflatten(0, (self.n_heads, -1))
        k_up_HNR, v_up_HVR = up_HWR.split([self.nope_dim, self.v_dim], dim=1)
        q_BTHN, q_BTHP = q_BTHK.split([self.nope_dim, self.rope_dim], dim=-1)
        q_BTHR = torch.einsum("bthn,hnr->bthr", q_BTHN, k_up_HNR)
        q_BTHC = torch.cat([q_BTHR, q_BTHP.to(q_BTHR.dtype)], dim=-1)
        # The scores are divided by sqrt(K), not sqrt(C).
        q_BTHC = q_BTHC * math.sqrt(cache_BSC.shape[-1] / self.head_dim)
        # One contiguous copy as keys and values, of which the rotated features are cut off again: torch's fused kernel
        # takes no narrower values, and its rounding depends on strides, which a state that was saved has not kept.
        cache_BS1C = cache_BSC[:, :, None].contiguous()
        y_BTHR = attend(q_BTHC, cache_BS1C, cache_BS1C)[..., : self.kv_rank]
        return torch.einsum("bthr,hvr->bthv", y_BTHR, v_up_HVR)
