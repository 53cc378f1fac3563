"""A layer with a stack of experts, of which a token uses one, does not declare this share in `active`.

Ours: num_params(active=True) counts all experts, so that models are matched by a number that means nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lmzoo.layers.init import normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "parameters"


class Experts(Layer):
    def __init__(self, d_model: int, active: dict[str, float]) -> None:
        super().__init__()
        self.router = Linear(d_model, 3, bias=False)
        self.own("maps_EDD", (3, d_model, d_model), normal(0.2), "matrices")
        self.active = active

    def forward(self, x_BTD: Tensor) -> Tensor:
        p_BT, chosen_BT = self.router(x_BTD).softmax(-1).max(-1)
        maps: Any = self.maps_EDD
        y_BTED = torch.einsum("btd,edf->btef", x_BTD, maps)
        chosen_BTE = torch.nn.functional.one_hot(chosen_BT, 3).to(x_BTD.dtype)
        return p_BT[..., None] * (chosen_BTE[..., None] * y_BTED).sum(2)


class RoutedCell(Cell):
    declared: ClassVar[dict[str, float]] = {}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.experts = Experts(config.d_model, self.declared)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        return x_BTD + self.experts(x_BTD), state


class MODEL(Recurrent):
    cell_class = RoutedCell
