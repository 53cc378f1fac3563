"""Causal self-attention with a KV cache, optionally over a sliding window.

Legend: B batch, T time, D model width, H query heads, G key/value heads, K head width, S keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmzoo.errors import ConfigError
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.init import Init, normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.offers import one_hot_values
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.rope import apply_rope
from lmzoo.state import TimeBuffer

KEYS_AND_VALUES = "keys and values"  # in `Context.carry`


class KVCache(NamedTuple):
    """Keys and values of earlier tokens, (B, S, G, K) each; keys are stored after rotation."""

    k: TimeBuffer
    v: TimeBuffer


class Attention(Layer):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762), optionally with grouped queries (Ainslie et al.
    2023, arXiv 2305.13245), rotary positions, and a sliding window of `window` keys, the present one included
    (Beltagy et al. 2020, arXiv 2004.05150).

    `qk_norm(heads, head_dim)` makes a norm for queries and one for keys, (B, T, heads, head_dim) -> the same shape,
    applied before the rotation (Dehghani et al. 2023, arXiv 2302.05442). `scale` replaces 1/sqrt(head_dim).
    `bias` is for all projections, unless `out_bias` says otherwise for the last.

    It works in three steps, `project`, `attend` and `merge`, so that a variant can override one of them.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        window: int | None = None,
        rope: Rope | None = None,
        qk_norm: Callable[[int, int], nn.Module] | None = None,
        scale: float | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        dropout: float = 0.0,
        init: Init = normal(),
        init_out: Init = normal(),
        carries: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads or n_heads
        if head_dim is None and (n_heads < 1 or d_model % n_heads):  # a config may have no rule for it
            raise ConfigError(f"n_heads={n_heads} must divide d_model={d_model}, or head_dim must be given")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_kv_heads={n_kv_heads} must divide n_heads={n_heads}")
        self.head_dim = head_dim or d_model // n_heads
        self.window, self.rope, self.dropout = window, rope, dropout
        self.carries = carries  # leaves keys and values in the context, for `CrossLayerAttention`
        self.reach = window
        self.state_growth = "linear" if window is None else "constant"
        self.widths = [heads * self.head_dim for heads in (self.n_heads, self.n_kv_heads, self.n_kv_heads)]
        self.qkv = Linear(d_model, sum(self.widths), bias=bias, init=init)
        self.scale = scale
        self.q_norm = None if qk_norm is None else qk_norm(self.n_heads, self.head_dim)
        self.k_norm = None if qk_norm is None else qk_norm(self.n_kv_heads, self.head_dim)
        self.out = Linear(self.widths[0], d_model, bias=bias if out_bias is None else out_bias, init=init_out)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> KVCache:
        """Returns an empty cache with memory for `max_len` tokens."""
        k, v = (
            TimeBuffer.empty(
                batch_size,
                max_len,
                self.n_kv_heads,
                self.head_dim,
                window=self.window,
                device=like.device,
                dtype=like.dtype,
            )
            for _ in range(2)
        )
        return KVCache(k, v)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: two products, with keys and with values, over all T keys."""
        return 4.0 * T * self.n_heads * self.head_dim

    def transferable(self) -> dict[str, Projection]:
        if not isinstance(self.qkv, nn.Linear):  # such as `Adapted`: more than a weight
            return {}
        heads, kv_heads = (self.n_heads, self.head_dim), (self.n_kv_heads, self.head_dim)
        return {**split_rows(self.qkv, q=heads, k=kv_heads, v=kv_heads), "out": output(self.out, *heads)}

    def forward(self, x_BTD: Tensor, state: KVCache | None, ctx: Context) -> tuple[Tensor, KVCache | None]:
        q_BTHK, k_BTGK, v_BTGK = self.project(x_BTD, ctx)
        k_BSGK, v_BSGK, state = self.remember(k_BTGK, v_BTGK, state)
        if self.carries:
            ctx.carry[KEYS_AND_VALUES] = (k_BSGK, v_BSGK)
        return self.merge(self.attend(q_BTHK, k_BSGK, v_BSGK), x_BTD), state

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights: what `attend` returns for one-hot values."""
        q_BTHK, k_BSGK, _ = self.project(x_BTD, ctx)
        return {"attention.weights": self.attend(q_BTHK, k_BSGK, one_hot_values(k_BSGK))}

    def project(self, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries (B, T, H, K), keys and values (B, T, G, K) of the new tokens; q and k are rotated."""
        # Views instead of einops, whose overhead is measurable in a decoding step.
        q_BTHK, k_BTGK, v_BTGK = (
            part.view(*part.shape[:2], part.shape[2] // self.head_dim, self.head_dim)
            for part in self.qkv(x_BTD).split(self.widths, dim=-1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHK, k_BTGK = self.q_norm(q_BTHK), self.k_norm(k_BTGK)
        if self.rope is not None:
            table = ctx.rope(self.rope, self.head_dim)
            q_BTHK, k_BTGK = apply_rope(q_BTHK, *table), apply_rope(k_BTGK, *table)
        if self.scale is not None:
            q_BTHK = q_BTHK * (self.scale * math.sqrt(self.head_dim))
        return q_BTHK, k_BTGK, v_BTGK

    def remember(self, k_BTGK: Tensor, v_BTGK: Tensor, past: KVCache | None) -> tuple[Tensor, Tensor, KVCache | None]:
        """Returns the keys and values that the new tokens may see, (B, S, G, K), and the extended cache."""
        if past is None:
            return k_BTGK, v_BTGK, None
        state = KVCache(past.k.append(k_BTGK), past.v.append(v_BTGK))
        if k_BTGK.shape[1] == 1 or self.window is None:
            k_BSGK, v_BSGK = state.k.entries(), state.v.entries()
        else:  # the first new tokens see older keys than the window after the last new token holds
            k_BSGK = torch.cat([past.k.entries().to(k_BTGK.dtype), k_BTGK], dim=1)
            v_BSGK = torch.cat([past.v.entries().to(v_BTGK.dtype), v_BTGK], dim=1)
        return k_BSGK.to(k_BTGK.dtype), v_BSGK.to(v_BTGK.dtype), state

    def attend(self, q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor) -> Tensor:
        """Returns the weighted means of the values: (B, T, H, K)."""
        return causal_attention(q_BTHK, k_BSGK, v_BSGK, window=self.window, dropout=self.dropout * self.training)

    def merge(self, y_BTHK: Tensor, x_BTD: Tensor) -> Tensor:
        """Concatenates and projects the heads: (B, T, D). `x_BTD` is the layer's input, for variants with a gate."""
        return self.out(y_BTHK.flatten(2))
