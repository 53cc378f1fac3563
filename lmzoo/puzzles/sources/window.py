"""A small transformer whose attention sees a window of the last tokens.

Each position compares its query with the keys of the last `window` tokens, itself included. What later tokens need of
the past is the state, which has a fixed size: it begins with rows of zeros, which stand for tokens before the first
one and are never attended to.

Legend: B batch, T new tokens, S tokens that are looked at, D model width, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_heads, require_positive
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.rope import apply_rope


class Kept(NamedTuple):
    """The state: keys and values of the last tokens (B, S, H, K)."""

    k: Tensor
    v: Tensor


class WindowAttention(Layer):
    """Causal self-attention over the last `window` tokens, with rotary positions."""

    state_growth: ClassVar[str] = "constant"

    def __init__(self, d_model: int, n_heads: int, window: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.window = n_heads, d_model // n_heads, window
        self.reach = window
        self.kept = window - 1  # tokens in the state
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token outside the linear maps; the rows of zeros are multiplied, too."""
        return 4.0 * (self.kept + T) * self.n_heads * self.head_dim

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Kept:
        """Returns the state before the first token."""
        return Kept(*like.new_zeros(2, batch_size, self.kept, self.n_heads, self.head_dim))

    def forward(self, x_BTD: Tensor, state: Kept | None, ctx: Context) -> tuple[Tensor, Kept | None]:
        """Returns the output and the next state."""
        q_BTHK, k_BTHK, v_BTHK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, self.head_dim)).unbind(2)
        table = ctx.rope(Rope(), self.head_dim)
        q_BTHK, k_BTHK = apply_rope(q_BTHK, *table), apply_rope(k_BTHK, *table)
        past = self.init_state(len(x_BTD), 0, k_BTHK) if state is None else state
        k_BSHK, v_BSHK = torch.cat([past.k, k_BTHK], dim=1), torch.cat([past.v, v_BTHK], dim=1)

        T, S = q_BTHK.shape[1], k_BSHK.shape[1]
        position_S = ctx.position - self.kept + torch.arange(S, device=x_BTD.device)
        behind_TS = ctx.positions_T[:, None] - position_S
        seen_TS = (behind_TS >= 0) & (behind_TS < self.window) & (position_S >= 0)
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / self.head_dim**0.5
        weights_BHTS = scores_BHTS.masked_fill(~seen_TS, -torch.inf).softmax(dim=-1)
        y_BTHK = torch.einsum("bhts,bshk->bthk", weights_BHTS, v_BSHK)
        return self.out(y_BTHK.flatten(2)), None if state is None else Kept(k_BSHK[:, T:], v_BSHK[:, T:])


@dataclass(frozen=True, kw_only=True)
class PuzzleConfig(lmzoo.MixerConfig):
    """Settings of the model, beside the sizes."""

    n_heads: int = 4
    window: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self)
        require_positive(self, "window")


@lmzoo.register_model("puzzle")
class Puzzle(lmzoo.MixerModel):
    """A transformer with a sliding window."""

    config_class: ClassVar[type[PuzzleConfig]] = PuzzleConfig

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return WindowAttention(config.d_model, config.n_heads, config.window)
