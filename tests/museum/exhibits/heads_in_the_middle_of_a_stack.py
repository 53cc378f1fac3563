"""Recurrent cells in heads: each head has a matrix of its own from its last output to its next input.

Ours: Muon makes each matrix in the last two axes orthogonal; here these axes mix the heads.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require_heads
from lmzoo.layers.context import Context
from lmzoo.layers.init import normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide, wide_dtype, without_autocast

CAUGHT_BY = "roles"


class Mixer(Layer):
    """`h_t = z_t h_{t-1} + (1 - z_t) tanh(v_t + R h_{t-1})` with a block-diagonal R."""

    state_growth = "constant"

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.inputs = Linear(d_model, 2 * d_model)
        self.own("recurrent", (self.head_dim, n_heads, self.head_dim), normal(), "matrices")
        self.norm = RMSNorm(self.head_dim)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch_size, self.n_heads, self.head_dim, dtype=wide_dtype(like.dtype))

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        v_BTHK, z_BTHK = wide(self.inputs(x_BTD)).unflatten(-1, (2, self.n_heads, self.head_dim)).unbind(2)
        z_BTHK = z_BTHK.sigmoid()
        h_BHK = self.init_state(len(x_BTD), 0, x_BTD) if state is None else state
        hs = []
        with without_autocast(x_BTD):
            weight = wide(self.recurrent)
            for v_BHK, z_BHK in zip(v_BTHK.unbind(1), z_BTHK.unbind(1), strict=True):
                fed_BHK = torch.einsum("bhk,khj->bhj", h_BHK, weight)
                h_BHK = z_BHK * h_BHK + (1 - z_BHK) * torch.tanh(v_BHK + fed_BHK)
                hs.append(h_BHK)
        y_BTD = self.norm(torch.stack(hs, dim=1)).flatten(2).to(x_BTD.dtype)
        return self.out(y_BTD), None if state is None else h_BHK


@dataclass(frozen=True, kw_only=True)
class Config(lmzoo.MixerConfig):
    n_heads: int = 4  # heads, each with a memory of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self, rotated=False)


class MODEL(lmzoo.MixerModel):
    """Recurrent cells in heads."""

    config_class = Config

    def make_mixer(self, config: Config, layer: int) -> nn.Module:
        return Mixer(config.d_model, config.n_heads)
