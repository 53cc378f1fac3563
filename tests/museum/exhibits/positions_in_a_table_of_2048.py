"""Rotary positions of neighbouring pairs of features (GPT-J), on grouped queries.

Ours: a rotary table of 2048 positions, in a model that says it extrapolates (an index error in a long chat).

Legend: B batch, T queries, S keys, D width, H heads, G key heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

import lmzoo
from lmzoo.configs import require_heads, require_positive
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.precision import wide_dtype
from lmzoo.state import TimeBuffer

CAUGHT_BY = "random_shapes"


@dataclass(frozen=True, kw_only=True)
class Config(lmzoo.MixerConfig):
    n_heads: int = 4
    n_kv_heads: int = 2
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self)
        require_positive(self, "rope_theta")


LONGEST = 2048  # positions of the table


class Cache(NamedTuple):
    k: TimeBuffer
    v: TimeBuffer


def pairs_table(first: int, end: int, theta: float, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines of the positions from `first` to `end` - 1, (T, 1, K/2)."""
    step_K = torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width
    angle_TK = torch.arange(first, end, dtype=torch.float64, device=like.device)[:, None] * theta**-step_K
    angle_T1K = angle_TK[:, None]
    dtype = wide_dtype(like.dtype)
    return angle_T1K.cos().to(dtype), angle_T1K.sin().to(dtype)


def rotated(x_BTHK: Tensor, cos_T1K: Tensor, sin_T1K: Tensor) -> Tensor:
    """Rotates the features 2 i and 2 i + 1 of each head."""
    even, odd = x_BTHK.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos_T1K - odd * sin_T1K, odd * cos_T1K + even * sin_T1K], dim=-1)
    return turned.flatten(-2).to(x_BTHK.dtype)


class Paired(Layer):
    state_growth = "linear"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.theta = config.n_heads, config.n_kv_heads, config.rope_theta
        self.width = config.d_model // config.n_heads
        self.q = Linear(config.d_model, config.d_model, bias=False)
        self.kv = Linear(config.d_model, 2 * self.kv_heads * self.width, bias=False)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Cache:
        shape = (batch_size, max_len, self.kv_heads, self.width)
        return Cache(*(TimeBuffer.empty(*shape, device=like.device, dtype=like.dtype) for _ in range(2)))

    def table(self, ctx: Context, like: Tensor) -> tuple[Tensor, Tensor]:
        cos_X1K, sin_X1K = pairs_table(0, LONGEST, self.theta, self.width, like)
        return cos_X1K[ctx.positions_T], sin_X1K[ctx.positions_T]

    def forward(self, x_BTD: Tensor, state: Cache | None, ctx: Context) -> tuple[Tensor, Cache | None]:
        q_BTHK = self.q(x_BTD).unflatten(-1, (self.heads, self.width))
        k_BSGK, v_BSGK = self.kv(x_BTD).unflatten(-1, (2, self.kv_heads, self.width)).unbind(2)
        table = self.table(ctx, x_BTD)
        q_BTHK, k_BSGK = rotated(q_BTHK, *table), rotated(k_BSGK, *table)
        if state is not None:
            state = Cache(state.k.append(k_BSGK), state.v.append(v_BSGK))
            k_BSGK, v_BSGK = (buffer.entries().to(q_BTHK.dtype) for buffer in state)
        return self.out(causal_attention(q_BTHK, k_BSGK, v_BSGK).flatten(2)), state


class MODEL(lmzoo.MixerModel):
    """Attention whose neighbouring features are rotated."""

    config_class: ClassVar[type[Config]] = Config

    def make_mixer(self, config: Any, layer: int) -> Paired:
        return Paired(config)
