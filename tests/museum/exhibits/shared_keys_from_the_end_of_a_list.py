"""Cross-layer sharing: every second layer reads the keys and values of the layer below it, and has none of its own.

Ours: cross-layer sharing of keys and values by a list; the layer that shares reads the last entry, which is another
owner's when activation checkpointing runs the layers again from the last to the first.

Legend: B batch, T time, S keys, D width, H heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

import lmzoo
from lmzoo.configs import require_heads, require_positive
from lmzoo.layers.attention import Attention, KVCache
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.attention import causal_attention
from lmzoo.ops.rope import apply_rope

CAUGHT_BY = "gradients"
SHARED = "shared keys and values"


@dataclass(frozen=True, kw_only=True)
class Config(lmzoo.MixerConfig):
    n_heads: int = 4
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self)
        require_positive(self, "rope_theta")


class Owner(Attention):
    """Attention that leaves its keys and values for the next layer."""

    def forward(self, x_BTD: Tensor, state: KVCache | None, ctx: Context) -> tuple[Tensor, KVCache | None]:
        q_BTHK, k_BTHK, v_BTHK = self.project(x_BTD, ctx)
        k_BSHK, v_BSHK, state = self.remember(k_BTHK, v_BTHK, state)
        ctx.carry.setdefault(SHARED, []).append((k_BSHK, v_BSHK))
        return self.merge(self.attend(q_BTHK, k_BSHK, v_BSHK), x_BTD), state


class Borrower(Layer):
    """Attention with queries alone."""

    reach = 1  # the owner counts the other tokens

    def __init__(self, d_model: int, n_heads: int, rope: Rope) -> None:
        super().__init__()
        self.n_heads, self.width, self.rope = n_heads, d_model // n_heads, rope
        self.q = Linear(d_model, d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> tuple[()]:
        return ()

    def flops(self, T: int) -> float:
        return 4.0 * T * self.n_heads * self.width

    def forward(self, x_BTD: Tensor, state: tuple[()] | None, ctx: Context) -> tuple[Tensor, tuple[()] | None]:
        q_BTHK = self.q(x_BTD).unflatten(-1, (self.n_heads, self.width))
        q_BTHK = apply_rope(q_BTHK, *ctx.rope(self.rope, self.width))
        k_BSHK, v_BSHK = ctx.carry[SHARED][-1]
        return self.out(causal_attention(q_BTHK, k_BSHK, v_BSHK).flatten(2)), state


class MODEL(lmzoo.MixerModel):
    """Attention layers of which every second one has no keys and values."""

    config_class: ClassVar[type[Config]] = Config

    def make_mixer(self, config: Any, layer: int) -> Layer:
        rope = Rope(config.rope_theta)
        if layer % 2:
            return Borrower(config.d_model, config.n_heads, rope)
        return Owner(config.d_model, config.n_heads, rope=rope)
