"""Each training pass refines an estimate of a matrix's largest singular value, by which the matrix is divided.

Spectral normalization (Miyato et al. 2018, arXiv 1802.05957): a buffer that training moves, but that holds nothing of a
batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class NormalizedCell(Cell):
    u_D: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.mix = Linear(config.d_model, config.d_model, bias=False)
        self.register_buffer("u_D", torch.ones(config.d_model))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        self.u_D.fill_(1.0)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        weight_DD = self.mix.weight
        v_D = F.normalize((weight_DD * self.u_D.clone()[:, None]).sum(0), dim=0)
        u_D = F.normalize((weight_DD * v_D).sum(1), dim=0)
        y_BTD = F.linear(x_BTD, weight_DD / (weight_DD * u_D[:, None] * v_D).sum())
        if self.training:
            self.u_D.copy_(u_D.detach())
        return x_BTD + y_BTD, state


class MODEL(Recurrent):
    cell_class = NormalizedCell
