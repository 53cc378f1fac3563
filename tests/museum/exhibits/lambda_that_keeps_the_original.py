"""A function made in the constructor holds a parameter: a copy of the model goes on reading that of the original.

Ours: a copy for decoding, for averages of weights or for a second process has weights that nothing moves.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "parameters"


class ScaledCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.second_norm = nn.RMSNorm(config.d_model)
        weight_D = self.second_norm.weight
        self.scaled = lambda x_BTD: weight_D * x_BTD

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        return self.scaled(x_BTD), state


class MODEL(Recurrent):
    cell_class = ScaledCell
