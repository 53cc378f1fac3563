"""The matrices stand in a parameter list, without a module for each, and their parent draws their initial values.

Ours: the members of a parameter list belong to no layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import is_deferred
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class ListCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        shape = (config.d_model, config.d_model)
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(shape)) for _ in range(2))
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        for weight in self.weights:
            nn.init.normal_(weight, std=0.1, generator=generator)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        first_DD, second_DD = self.weights
        return x_BTD + F.linear(torch.tanh(F.linear(x_BTD, first_DD)), second_DD), state


class MODEL(Recurrent):
    cell_class = ListCell
