"""Linear attention with a decay for each token and head, computed in chunks.

    S_t = exp(g_t) S_(t-1) + k_t v_t'        g_t below 0, from the token
    y_t = q_t S_t

Within a chunk of 64 tokens, this is computed as attention whose weights decay with the distance. All earlier chunks
are in the matrix S, which is carried from chunk to chunk, and which is the state. `c` is the sum of the g of a chunk,
from its start to each token.

Legend: B batch, T tokens of a chunk, H heads, K key width, V value width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_heads
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide, wide_dtype

CHUNK = 64


class ChunkedAttention(Layer):
    """Linear attention in chunks."""

    state_growth: ClassVar[str] = "constant"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.decay = Linear(d_model, n_heads)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns the state before the first token (B, H, K, V)."""
        sizes = (batch_size, self.n_heads, self.head_dim, self.head_dim)
        return like.new_zeros(sizes, dtype=wide_dtype(like.dtype))

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        """Returns the output and the next state."""
        sizes = (3, self.n_heads, self.head_dim)
        q_BTHK, k_BTHK, v_BTHV = wide(self.qkv(x_BTD)).unflatten(-1, sizes).unbind(2)
        q_BTHK = q_BTHK * self.head_dim**-0.5
        g_BTH = F.logsigmoid(wide(self.decay(x_BTD))) / 16
        S_BHKV = self.init_state(len(x_BTD), 0, x_BTD) if state is None else state
        y_chunks: list[Tensor] = []
        for q, k, v, g in zip(*(x.split(CHUNK, dim=1) for x in (q_BTHK, k_BTHK, v_BTHV, g_BTH)), strict=True):
            c_BTH = g.cumsum(dim=1)
            y_chunks.append(self.inside(q, k, v, c_BTH) + self.before(q, c_BTH, S_BHKV))
            S_BHKV = self.carry(k, v, c_BTH, S_BHKV)
        y_BTD = torch.cat(y_chunks, dim=1).flatten(2).to(x_BTD.dtype)
        return self.out(y_BTD), None if state is None else S_BHKV

    def inside(self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, c_BTH: Tensor) -> Tensor:
        """Returns what the tokens of a chunk read from each other (B, T, H, V)."""
        T = q_BTHK.shape[1]
        decay_BHTS = (c_BTH[:, :, None] - c_BTH[:, None]).permute(0, 3, 1, 2)
        later_TS = torch.ones(T, T, dtype=torch.bool, device=c_BTH.device).triu(1)
        weights_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK)
        weights_BHTS = weights_BHTS * decay_BHTS.masked_fill(later_TS, -torch.inf).exp()
        return torch.einsum("bhts,bshv->bthv", weights_BHTS, v_BTHV)

    def before(self, q_BTHK: Tensor, c_BTH: Tensor, S_BHKV: Tensor) -> Tensor:
        """Returns what the tokens of a chunk read from earlier chunks (B, T, H, V)."""
        return torch.einsum("bthk,bhkv->bthv", q_BTHK * c_BTH.exp()[..., None], S_BHKV)

    def carry(self, k_BTHK: Tensor, v_BTHV: Tensor, c_BTH: Tensor, S_BHKV: Tensor) -> Tensor:
        """Returns the state after a chunk."""
        left_BTH1 = (c_BTH[:, -1:] - c_BTH).exp()[..., None]
        added_BHKV = torch.einsum("bthk,bthv->bhkv", k_BTHK * left_BTH1, v_BTHV)
        return S_BHKV * c_BTH[:, -1].exp()[..., None, None] + added_BHKV


@dataclass(frozen=True, kw_only=True)
class PuzzleConfig(lmzoo.MixerConfig):
    """Settings of the model, beside the sizes."""

    n_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)


@lmzoo.register_model("puzzle")
class Puzzle(lmzoo.MixerModel):
    """Linear attention in chunks."""

    config_class: ClassVar[type[PuzzleConfig]] = PuzzleConfig

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return ChunkedAttention(config.d_model, config.n_heads)
