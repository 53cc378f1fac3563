"""The second matrix of a feed-forward layer is declared as a vector, to keep it out of weight decay.

Ours: the role also keeps it from Muon, so half of the layer is trained by another optimizer than the comparison says.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "roles"


class MappedCell(Cell):
    parameter_roles: ClassVar[dict[str, str]] = {"down": "vector"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.up = Linear(config.d_model, 24)
        self.down = nn.Parameter(torch.empty(24, config.d_model))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        nn.init.normal_(self.down, std=0.2, generator=generator)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        return x_BTD + F.linear(F.silu(self.up(x_BTD)), self.down.t()), state


class MODEL(Recurrent):
    cell_class = MappedCell
