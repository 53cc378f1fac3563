"""A small transformer with learned positions, its attention written out.

A vector for its position is added to the embedding of each token. Each position then takes a weighted mean of the
values of all positions up to itself. The keys and values of the tokens that were read are the state.

Legend: B batch, T new tokens, S all tokens so far, D model width, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_heads
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.state import TimeBuffer


class Cache(NamedTuple):
    """The state: keys and values (B, S, H, K)."""

    k: TimeBuffer
    v: TimeBuffer


class Attention(Layer):
    """Causal self-attention."""

    state_growth: ClassVar[str] = "linear"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token outside the linear maps."""
        return 4.0 * T * self.n_heads * self.head_dim

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Cache:
        """Returns the state before the first token."""
        sizes, options = (self.n_heads, self.head_dim), {"device": like.device, "dtype": like.dtype}
        return Cache(*(TimeBuffer.empty(batch_size, max_len, *sizes, **options) for _ in "kv"))

    def forward(self, x_BTD: Tensor, state: Cache | None, ctx: Context) -> tuple[Tensor, Cache | None]:
        """Returns the output and the next state."""
        q_BTHK, k_BSHK, v_BSHK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, self.head_dim)).unbind(2)
        if state is not None:
            state = Cache(state.k.append(k_BSHK), state.v.append(v_BSHK))
            k_BSHK, v_BSHK = state.k.entries().to(q_BTHK.dtype), state.v.entries().to(q_BTHK.dtype)
        T, S = q_BTHK.shape[1], k_BSHK.shape[1]
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / self.head_dim**0.5
        hidden_TS = torch.ones(T, S, dtype=torch.bool, device=x_BTD.device).triu(S - T + 1)
        weights_BHTS = scores_BHTS.masked_fill(hidden_TS, -torch.inf).softmax(dim=-1)
        y_BTHK = torch.einsum("bhts,bshk->bthk", weights_BHTS, v_BSHK)
        return self.out(y_BTHK.flatten(2)), state


@dataclass(frozen=True, kw_only=True)
class PuzzleConfig(lmzoo.MixerConfig):
    """Settings of the model, beside the sizes."""

    n_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)


@lmzoo.register_model("puzzle")
class Puzzle(lmzoo.MixerModel):
    """A transformer with learned positions."""

    config_class: ClassVar[type[PuzzleConfig]] = PuzzleConfig
    extrapolates: ClassVar[bool] = False  # the table of positions ends at `context_length`

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.positions = Embedding(config.context_length, config.d_model)

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        """Returns the embeddings of the tokens and of their positions, added."""
        return self.tokens(idx_BT) + self.positions(ctx.positions_T)

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return Attention(config.d_model, config.n_heads)
