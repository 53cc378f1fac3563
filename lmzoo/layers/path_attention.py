"""PaTH's mixer: attention with positions from accumulated Householder products (Yang et al. 2025, arXiv 2505.16381).

Legend: B batch, T time, D model width, H query heads, G key/value heads, K head width, S keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import l2_normalize
from lmzoo.layers.offers import one_hot_values
from lmzoo.layers.short_conv import ShortConv
from lmzoo.ops.path_attention import path_attention
from lmzoo.ops.precision import wide, wide_dtype
from lmzoo.state import TimeBuffer


class PathState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, G K), the last inputs of the convolution
    keys: TimeBuffer  # (B, S, G, K), changed by all tokens since, float32 or wider
    values: TimeBuffer  # (B, S, G, K)
    decay: TimeBuffer | None  # (B, S, H), the cumulative sums of the log gates, float32 or wider; None without gates


class PathAttention(Attention):
    """Attention in which every token changes all earlier keys: `k <- k - beta w (w . k)`, before its query reads them.

    The direction `w` comes from a projection of rank `w_rank` and a short convolution and has length one; beta is
    between 0 and 2. With `forget_gate` scores also fade by the log of a forget gate per head and token, which is scaled
    by 1/sqrt(K) like the scores, as in the authors' code. Each step of decoding writes all keys anew.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        w_rank: int = 32,
        d_conv: int = 3,
        forget_gate: bool = False,
    ) -> None:
        super().__init__(d_model, n_heads, n_kv_heads=n_kv_heads)
        self.w_down = Linear(d_model, w_rank, bias=False)
        self.w_up = Linear(w_rank, self.n_kv_heads * self.head_dim, bias=False)
        self.w_conv = ShortConv(self.n_kv_heads * self.head_dim, d_conv, bias=False)
        self.beta = Linear(d_model, self.n_kv_heads)
        self.forget = Linear(d_model, n_heads) if forget_gate else None

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> PathState:  # type: ignore[override]
        """Returns an empty cache with memory for `max_len` tokens, and zeros for the convolution's last inputs."""
        tail, (_, values) = (
            self.w_conv.init_state(batch_size, max_len, like),
            super().init_state(batch_size, max_len, like),
        )
        kept = {"device": like.device, "dtype": wide_dtype(like.dtype)}
        keys = TimeBuffer.empty(batch_size, max_len, self.n_kv_heads, self.head_dim, **kept)
        decay = None if self.forget is None else TimeBuffer.empty(batch_size, max_len, self.n_heads, **kept)
        return PathState(tail, keys, values, decay)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: scores and values over all T keys, and the change of each of them."""
        return 4.0 * T * (self.n_heads + self.n_kv_heads) * self.head_dim

    def forward(self, x_BTD: Tensor, state: PathState | None, ctx: Context) -> tuple[Tensor, PathState | None]:  # type: ignore[override]
        tail, keys, values, decay = (None, None, None, None) if state is None else state
        q_BTHK, k_BTGK, v_BSGK = self.project(x_BTD, ctx)
        w_BTGK, beta_BTG, tail = self.directions(x_BTD, tail, ctx)
        if values is not None:
            values = values.append(v_BSGK)
            v_BSGK = values.entries().to(v_BSGK.dtype)
        decay_BSH, decay = self.sum_of_gates(x_BTD, decay)
        past_BPGK = None if keys is None else keys.entries()
        y_BTHK, keys_BSGK = path_attention(q_BTHK, k_BTGK, v_BSGK, w_BTGK, beta_BTG, past_BPGK, decay_BSH)
        y_BTD = self.merge(y_BTHK, x_BTD)
        if tail is None or values is None:
            return y_BTD, None
        return y_BTD, PathState(tail, TimeBuffer(keys_BSGK, keys_BSGK.shape[1]), values, decay)

    def directions(self, x_BTD: Tensor, tail: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns the directions (B, T, G, K) and the strengths (B, T, G) of the changes, and the next tail."""
        w, tail = self.w_conv(self.w_up(self.w_down(x_BTD)), tail, ctx)
        w_BTGK = l2_normalize(w.unflatten(-1, (self.n_kv_heads, self.head_dim)))
        return w_BTGK, 2 * wide(self.beta(x_BTD)).sigmoid(), tail

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights, and the forget gates if there are any."""
        q_BTHK, k_BTGK, _ = self.project(x_BTD, ctx)
        w_BTGK, beta_BTG, _ = self.directions(x_BTD, None, ctx)
        decay_BSH, _ = self.sum_of_gates(x_BTD, None)
        past_BPGK = k_BTGK[:, :0]  # given because values of another width cannot take its place
        weights_BTHS, _ = path_attention(q_BTHK, k_BTGK, one_hot_values(k_BTGK), w_BTGK, beta_BTG, past_BPGK, decay_BSH)
        offered = {"attention.weights": weights_BTHS}
        if decay_BSH is not None:
            offered["gates.decay"] = decay_BSH.diff(dim=1, prepend=torch.zeros_like(decay_BSH[:, :1])).exp()
        return offered

    def sum_of_gates(self, x_BTD: Tensor, past: TimeBuffer | None) -> tuple[Tensor | None, TimeBuffer | None]:
        """Returns the cumulative sums of the scaled log gates of all tokens, (B, S, H), and the extended buffer."""
        if self.forget is None:
            return None, None
        decay_BSH = F.logsigmoid(wide(self.forget(x_BTD))).cumsum(dim=1) * self.head_dim**-0.5
        if past is None:
            return decay_BSH, None
        if past.length:
            decay_BSH = past.entries()[:, -1:] + decay_BSH
        past = past.append(decay_BSH)
        return past.entries(), past
