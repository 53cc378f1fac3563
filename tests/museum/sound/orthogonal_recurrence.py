"""A plain recurrent network whose matrix starts as an orthogonal one, drawn by a decomposition.

Saxe et al. 2013 (arXiv 1312.6120) and Henaff et al. 2016 (arXiv 1602.06662).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from tests.museum.base import CellConfig, Recurrent


def orthogonal(weight: Tensor, generator: torch.Generator | None) -> None:
    """Fills a matrix with a random orthogonal one."""
    nn.init.orthogonal_(weight, generator=generator)


class OrthogonalCell(nn.Module):
    """h = tanh(A h + B x)."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.into = Linear(config.d_model, config.d_model)
        self.recur = Linear(config.d_model, config.d_model, bias=False, init=orthogonal)
        self.out = Linear(config.d_model, config.d_model)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return like.new_zeros(B, self.out.in_features)

    def forward(self, x_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        u_BTD, hs, dtype = self.into(self.norm(x_BTD)), [], h_BD.dtype
        for t in range(x_BTD.shape[1]):
            h_BD = torch.tanh(u_BTD[:, t] + self.recur(h_BD)).to(dtype)
            hs.append(h_BD)
        return x_BTD + self.out(torch.stack(hs, dim=1)), h_BD


class MODEL(Recurrent):
    cell_class = OrthogonalCell
