"""All weights of a low-rank gate start at one constant, so its hidden units are equal and stay equal: its rank is 1.

Ours: symmetry that random initial weights break. The loss falls all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import constant
from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "gradients"


class GatedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.down = Linear(config.d_model, 4, init=constant(0.1))
        self.up = Linear(4, config.d_model, init=constant(0.1))

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD * torch.sigmoid(self.up(torch.tanh(self.down(x_BTD)))), state


class MODEL(Recurrent):
    cell_class = GatedCell
