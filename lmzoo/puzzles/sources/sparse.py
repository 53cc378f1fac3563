"""A transformer whose attention looks at few keys: the ones that agree with the query in the most signs.

For each query, a cheap score counts the features in which query and key have the same sign. The query then attends to
the 8 visible keys with the highest counts, as in HashAttention (Desai et al. 2024, arXiv 2412.14468). The keys and
values of all tokens are the state.

Legend: B batch, T new tokens, S all tokens so far, D model width, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_heads
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.rope import apply_rope
from lmzoo.ops.stable_topk import stable_topk
from lmzoo.state import TimeBuffer

KEYS = 8  # for each query and head


class Cache(NamedTuple):
    """The state: keys and values (B, S, H, K)."""

    k: TimeBuffer
    v: TimeBuffer


class SparseAttention(Layer):
    """Causal self-attention to the keys that agree with the query in the most signs, with rotary positions."""

    state_growth: ClassVar[str] = "linear"
    chooses: ClassVar[bool] = True

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token outside the linear maps."""
        return 6.0 * T * self.n_heads * self.head_dim

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Cache:
        """Returns the state before the first token."""
        sizes, options = (self.n_heads, self.head_dim), {"device": like.device, "dtype": like.dtype}
        return Cache(*(TimeBuffer.empty(batch_size, max_len, *sizes, **options) for _ in "kv"))

    def forward(self, x_BTD: Tensor, state: Cache | None, ctx: Context) -> tuple[Tensor, Cache | None]:
        """Returns the output and the next state."""
        q_BTHK, k_BSHK, v_BSHK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, self.head_dim)).unbind(2)
        table = ctx.rope(Rope(), self.head_dim)
        q_BTHK, k_BSHK = apply_rope(q_BTHK, *table), apply_rope(k_BSHK, *table)
        if state is not None:
            state = Cache(state.k.append(k_BSHK), state.v.append(v_BSHK))
            k_BSHK, v_BSHK = state.k.entries().to(q_BTHK.dtype), state.v.entries().to(q_BTHK.dtype)
        T, S = q_BTHK.shape[1], k_BSHK.shape[1]
        hidden_TS = torch.ones(T, S, dtype=torch.bool, device=x_BTD.device).triu(S - T + 1)
        counts_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK.sign(), k_BSHK.sign())
        chosen_BHTS = self.choose(counts_BHTS.masked_fill(hidden_TS, -torch.inf))
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / self.head_dim**0.5
        weights_BHTS = scores_BHTS.masked_fill(hidden_TS | ~chosen_BHTS, -torch.inf).softmax(dim=-1)
        y_BTHK = torch.einsum("bhts,bshk->bthk", weights_BHTS, v_BSHK)
        return self.out(y_BTHK.flatten(2)), state

    def choose(self, counts_BHTS: Tensor) -> Tensor:
        """Returns True for the keys with the highest counts."""
        _, best = stable_topk(counts_BHTS, min(KEYS, counts_BHTS.shape[-1]))
        return torch.zeros_like(counts_BHTS, dtype=torch.bool).scatter(-1, best, True)


@dataclass(frozen=True, kw_only=True)
class PuzzleConfig(lmzoo.MixerConfig):
    """Settings of the model, beside the sizes."""

    n_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self)


@lmzoo.register_model("puzzle")
class Puzzle(lmzoo.MixerModel):
    """A transformer with sparse attention."""

    config_class: ClassVar[type[PuzzleConfig]] = PuzzleConfig

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return SparseAttention(config.d_model, config.n_heads)
