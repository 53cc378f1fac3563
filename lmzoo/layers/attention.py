"""Causal self-attention over a cache that grows or slides. Legend: H heads, G key/value heads, K head width, S keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.rope import apply_rope
from lmzoo.state import TimeBuffer


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, (B, S, G, K) each; keys are stored with their rotation applied."""

    k: TimeBuffer
    v: TimeBuffer


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762), optionally with grouped queries (Ainslie et al.
    2023, arXiv 2305.13245), rotary positions, and a sliding window of `window` keys, the present one included
    (Beltagy et al. 2020, arXiv 2004.05150).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        window: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        out_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads or n_heads
        self.head_dim = head_dim or d_model // n_heads
        self.window, self.dropout = window, dropout
        widths = [self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim, self.n_kv_heads * self.head_dim]
        self.widths = widths
        self.qkv = Linear(d_model, sum(widths), bias=bias)
        self.out = Linear(widths[0], d_model, bias=bias, std=out_std)

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> KVCache:
        """Its piece of the decoding state before the first token."""
        shape = (self.n_kv_heads, self.head_dim)
        k, v = (
            TimeBuffer.empty(batch_size, max_len, *shape, window=self.window, device=device, dtype=dtype)
            for _ in range(2)
        )
        return KVCache(k, v)

    def flops(self, T: int) -> float:
        """The two products with keys and with values, over all T."""
        return 4.0 * T * self.n_heads * self.head_dim

    def forward(
        self, x_BTD: Tensor, state: KVCache | None = None, rope_TK: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, KVCache | None]:
        """`rope_TK`: cosines and sines for the positions of x, or None for an attention that knows no positions."""
        q, k, v = self.qkv(x_BTD).split(self.widths, dim=-1)
        # Views, not einops: at every step of decoding its calls are a good part of the overhead (docs/log.md).
        q_BTHK, k_BTGK, v_BTGK = (
            part.view(*part.shape[:2], part.shape[2] // self.head_dim, self.head_dim) for part in (q, k, v)
        )
        if rope_TK is not None:
            q_BTHK, k_BTGK = apply_rope(q_BTHK, *rope_TK), apply_rope(k_BTGK, *rope_TK)
        k_BSGK, v_BSGK = k_BTGK, v_BTGK
        if state is not None:
            past, state = state, KVCache(state.k.append(k_BTGK), state.v.append(v_BTGK))
            if x_BTD.shape[1] == 1 or self.window is None:
                k_BSGK, v_BSGK = state.k.entries(), state.v.entries()
            else:  # the first of the new tokens look further back than what stays in reach after the last of them
                k_BSGK = torch.cat([past.k.entries().to(k.dtype), k_BTGK], dim=1)
                v_BSGK = torch.cat([past.v.entries().to(v.dtype), v_BTGK], dim=1)
        y_BTHK = causal_attention(
            q_BTHK, k_BSGK.to(q.dtype), v_BSGK.to(q.dtype), window=self.window, dropout=self.dropout * self.training
        )
        return self.out(y_BTHK.flatten(2)), state
