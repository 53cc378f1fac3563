"""A linear recurrence whose matrix is the exponential of a skew-symmetric one, hence a rotation for any weights.

expRNN (Lezcano-Casado & Martinez-Rubio 2019, arXiv 1901.08428).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.ops.precision import wide
from tests.museum.base import CellConfig, Recurrent


class RotatingCell(Layer):
    """h = 0.9 exp(A - A') h + u."""

    keep_float32 = ("skew_DD",)
    skew_DD: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.into = Linear(config.d_model, config.d_model)
        self.own("skew_DD", (config.d_model, config.d_model), normal(0.5), "matrix")
        self.out = Linear(config.d_model, config.d_model)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return wide(like.new_zeros(B, len(self.skew_DD)))

    def forward(self, x_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        skew_DD = wide(self.skew_DD)
        rotation_DD = 0.9 * torch.matrix_exp(skew_DD - skew_DD.mT)
        u_BTD, hs = wide(self.into(self.norm(x_BTD))), []
        for t in range(x_BTD.shape[1]):
            h_BD = (h_BD @ rotation_DD).to(h_BD.dtype) + u_BTD[:, t]
            hs.append(h_BD)
        return x_BTD + self.out(torch.stack(hs, dim=1).to(x_BTD.dtype)), h_BD


class MODEL(Recurrent):
    cell_class = RotatingCell
