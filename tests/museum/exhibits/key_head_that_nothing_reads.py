"""Gated linear attention with fewer key heads than value heads.

Ours: three key heads for four heads of values are accepted, and the last key head is never read.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require, require_heads, require_positive
from lmzoo.layers.context import Context
from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide, wide_dtype

CAUGHT_BY = "settings"


@dataclass(frozen=True, kw_only=True)
class Config(lmzoo.MixerConfig):
    n_heads: int = 4  # heads of values
    n_key_heads: int = 2  # heads of queries and keys, which value heads share

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)
        require_positive(self, "n_key_heads")
        require(
            self.n_key_heads <= self.n_heads, f"n_key_heads={self.n_key_heads} must be at most n_heads={self.n_heads}"
        )


class Mixer(Layer):
    """`S_t = keep_t S_{t-1} + k_t v_t`, `y_t = q_t S_t` with a gate for each head of values."""

    state_growth = "constant"

    def __init__(self, d_model: int, n_heads: int, n_key_heads: int) -> None:
        super().__init__()
        self.n_heads, self.n_key_heads, self.head_dim = n_heads, n_key_heads, d_model // n_heads
        self.q = Linear(d_model, n_key_heads * self.head_dim, bias=False)
        self.k = Linear(d_model, n_key_heads * self.head_dim, bias=False)
        self.v = Linear(d_model, d_model, bias=False)
        self.keep = Linear(d_model, n_heads, bias_init=constant(2.0))
        self.norm = RMSNorm(self.head_dim)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        shape = (batch_size, self.n_heads, self.head_dim, self.head_dim)
        return like.new_zeros(shape, dtype=wide_dtype(like.dtype))

    def shared(self, x_BTX: Tensor) -> Tensor:
        """Returns queries or keys of all heads of values, (B, T, H, K)."""
        x_BTGK = wide(x_BTX).unflatten(-1, (self.n_key_heads, self.head_dim))
        return x_BTGK.repeat_interleave(-(-self.n_heads // self.n_key_heads), dim=2)[:, :, : self.n_heads]

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        q, k = self.shared(self.q(x_BTD)), self.shared(self.k(x_BTD))
        v = wide(self.v(x_BTD)).unflatten(-1, (self.n_heads, self.head_dim))
        keep_BTH = wide(self.keep(x_BTD)).sigmoid()
        S_BHKV = self.init_state(len(x_BTD), 0, x_BTD) if state is None else state
        ys = []
        for t in range(x_BTD.shape[1]):
            S_BHKV = keep_BTH[:, t, :, None, None] * S_BHKV + k[:, t, ..., None] * v[:, t, :, None]
            ys.append((q[:, t, ..., None] * S_BHKV).sum(dim=-2))
        y_BTD = self.norm(torch.stack(ys, dim=1)).flatten(2).to(x_BTD.dtype)
        return self.out(y_BTD), None if state is None else S_BHKV


class MODEL(lmzoo.MixerModel):
    """Gated linear attention with shared keys."""

    config_class = Config

    def make_mixer(self, config: Config, layer: int) -> nn.Module:
        return Mixer(config.d_model, config.n_heads, config.n_key_heads)
