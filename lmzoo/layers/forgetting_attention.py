"""FoX's mixers: attention with forget gates, plain and "Pro" (Lin et al. 2025, arXiv 2503.02130).

Legend: B batch, T time, D model width, H query heads, G key/value heads, K head width, S keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.head_norm import HeadRMSNorm
from lmzoo.layers.linear import Linear
from lmzoo.layers.offers import one_hot_values
from lmzoo.ops.forgetting_attention import forgetting_attention
from lmzoo.ops.precision import wide, wide_dtype
from lmzoo.state import TimeBuffer


class ForgettingState(NamedTuple):
    """The decoding state of the mixers."""

    cache: KVCache
    decay: TimeBuffer  # (B, S, H), the cumulative sums of the log gates, float32 or wider
    tail: Tensor | None  # (B, 2, G, K), the last key and value before the shift; None without a shift


class ForgettingAttention(Attention):
    """Attention whose scores fade by a forget gate: `f = sigmoid(forget(x))` per head and token.

    The gates also tell positions apart, so rotary positions are optional.
    """

    def __init__(self, d_model: int, n_heads: int, *, n_kv_heads: int | None = None, rope: Rope | None = None) -> None:
        super().__init__(d_model, n_heads, n_kv_heads=n_kv_heads, rope=rope)
        self.forget = Linear(d_model, n_heads)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> ForgettingState:  # type: ignore[override]
        """Returns an empty cache with memory for `max_len` tokens."""
        decay = TimeBuffer.empty(batch_size, max_len, self.n_heads, device=like.device, dtype=wide_dtype(like.dtype))
        return ForgettingState(super().init_state(batch_size, max_len, like), decay, None)

    def forward(  # type: ignore[override]
        self, x_BTD: Tensor, state: ForgettingState | None, ctx: Context
    ) -> tuple[Tensor, ForgettingState | None]:
        cache, decay, tail = (None, None, None) if state is None else state
        q_BTHK, k_BTGK, v_BTGK = self.project(x_BTD, ctx)
        q_BTHK, k_BTGK, v_BTGK, tail = self.prepare(x_BTD, q_BTHK, k_BTGK, v_BTGK, tail)
        k_BSGK, v_BSGK, cache = self.remember(k_BTGK, v_BTGK, cache)
        decay_BSH = self.log_gates(x_BTD).cumsum(dim=1)
        if decay is not None:
            if decay.length:
                decay_BSH = decay.entries()[:, -1:] + decay_BSH
            decay = decay.append(decay_BSH)
            decay_BSH = decay.entries()
        y_BTHK = forgetting_attention(q_BTHK, k_BSGK, v_BSGK, decay_BSH)
        y_BTD = self.merge(y_BTHK, x_BTD)
        return y_BTD, None if cache is None or decay is None else ForgettingState(cache, decay, tail)

    def log_gates(self, x_BTD: Tensor) -> Tensor:
        """Returns the logarithms of the forget gates, (B, T, H), in float32 or wider."""
        return F.logsigmoid(wide(self.forget(x_BTD)))

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights and the forget gates."""
        q_BTHK, k_BSGK, _, _ = self.prepare(x_BTD, *self.project(x_BTD, ctx), None)
        log_BSH = self.log_gates(x_BTD)
        weights_BTHS = forgetting_attention(q_BTHK, k_BSGK, one_hot_values(k_BSGK), log_BSH.cumsum(dim=1))
        return {"attention.weights": weights_BTHS, "gates.decay": log_BSH.exp()}

    def prepare(
        self, x_BTD: Tensor, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, tail: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Returns queries, keys and values as the attention reads them, and the next tail; here unchanged."""
        return q_BTHK, k_BTGK, v_BTGK, tail


class ForgettingAttentionPro(ForgettingAttention):
    """`ForgettingAttention` with the parts of the paper's "Pro" block.

    Keys and values are shifted: a share of each head, given by the token, is taken from the token before. Queries, keys
    and outputs are normalized per head, and a sigmoid gate multiplies the outputs.
    """

    def __init__(self, d_model: int, n_heads: int, *, n_kv_heads: int | None = None) -> None:
        super().__init__(d_model, n_heads, n_kv_heads=n_kv_heads)
        self.shift = Linear(d_model, 2 * self.n_kv_heads, bias=False)
        self.query_norm, self.out_norm = (HeadRMSNorm(n_heads, self.head_dim) for _ in range(2))
        self.key_norm = HeadRMSNorm(self.n_kv_heads, self.head_dim)
        self.gate = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> ForgettingState:  # type: ignore[override]
        """Returns an empty cache, and zeros for the key and value before the first token."""
        tail = like.new_zeros(batch_size, 2, self.n_kv_heads, self.head_dim)
        return super().init_state(batch_size, max_len, like)._replace(tail=tail)

    def prepare(
        self, x_BTD: Tensor, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, tail: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Shifts keys and values, and normalizes queries and keys."""
        new_BTNGK = torch.stack([k_BTGK, v_BTGK], dim=2)
        first_BNGK = torch.zeros_like(new_BTNGK[:, 0]) if tail is None else tail.to(new_BTNGK.dtype)
        before_BTNGK = torch.cat([first_BNGK[:, None], new_BTNGK[:, :-1]], dim=1)
        share_BTNG1 = self.shift(x_BTD).sigmoid().unflatten(-1, (2, self.n_kv_heads, 1))
        k_BTGK, v_BTGK = torch.lerp(new_BTNGK, before_BTNGK, share_BTNG1).unbind(2)
        return self.query_norm(q_BTHK), self.key_norm(k_BTGK), v_BTGK, None if tail is None else new_BTNGK[:, -1]

    def merge(self, y_BTHK: Tensor, x_BTD: Tensor) -> Tensor:
        """Normalizes the heads, multiplies them by their gates, and projects them."""
        return self.out(self.out_norm(y_BTHK).flatten(2) * self.gate(x_BTD).sigmoid())
