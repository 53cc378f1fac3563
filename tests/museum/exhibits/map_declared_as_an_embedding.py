"""A map between features declares the role of an embedding: it is left out of counts, and no decay applies to it.

Ours: the role of a table of tokens, copied to the projection behind it.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "roles"


class MappingCell(Cell):
    parameter_roles: ClassVar[dict[str, str]] = {"taps_WD": "vector", "map_DD": "embedding"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.map_DD = nn.Parameter(0.1 * nn.init.orthogonal_(nn.Linear(config.d_model, config.d_model).weight.detach()))

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        return x_BTD + F.linear(x_BTD, self.map_DD), state


class MODEL(Recurrent):
    cell_class = MappingCell
