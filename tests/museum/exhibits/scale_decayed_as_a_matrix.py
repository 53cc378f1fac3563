"""A scale per channel has the shape (1, D), so it counts as a matrix and decays to zero.

Similar to ServiceNow/Fast-LLM#545 and majumderb/rezero#14 (scales that weight decay pulls to zero).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "roles"


class ScaledCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.scale_1D = nn.Parameter(torch.empty(1, config.d_model))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        nn.init.ones_(self.scale_1D)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD * self.scale_1D, state


class MODEL(Recurrent):
    cell_class = ScaledCell
