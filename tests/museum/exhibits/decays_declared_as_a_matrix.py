"""A table of decay rates, used as exp(-exp(rates)), is declared as a matrix: weight decay and Muon change the decays.

Ours: an author must know that "matrix" is not the word for every table of two dimensions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "roles"


class DecayedCell(Cell):
    parameter_roles: ClassVar[dict[str, str]] = {"rates": "matrix"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.rates = nn.Parameter(torch.zeros(2, config.d_model // 2))

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        keep = torch.exp(-torch.exp(self.rates))
        return (y_BTD.unflatten(-1, (2, -1)) * keep).flatten(-2), state


class MODEL(Recurrent):
    cell_class = DecayedCell
