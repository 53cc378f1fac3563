"""A matrix is divided by the norms of its rows and multiplied with learned lengths, elementwise: it is still a matrix.

Weight normalization (Salimans & Kingma 2016, arXiv 1602.07868), written out.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class NormalizedCell(Cell):
    parameter_roles: ClassVar[dict[str, str]] = {"length": "vector"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.direction = nn.Parameter(torch.empty(config.d_model, config.d_model))
        self.length = nn.Parameter(torch.empty(config.d_model, 1))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        nn.init.normal_(self.direction, generator=generator)
        nn.init.ones_(self.length)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        weight = self.direction * (self.length / self.direction.norm(dim=1, keepdim=True))
        return F.linear(y_BTD, weight), state


class MODEL(Recurrent):
    cell_class = NormalizedCell
