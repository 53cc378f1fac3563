"""A value is refined until it no longer changes anywhere in the batch: other rows decide how often.

Ours: for most random weights every text takes as many rounds as are allowed, and rows seem independent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "batch_independence"
ROUNDS = 10
CLOSE = 1e-3


class RefiningCell(Cell):
    axes: ClassVar[tuple[int, ...]] = (0, 1, 2)

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.again = Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        y_BTD = x_BTD
        for _ in range(ROUNDS):
            next_BTD = torch.tanh(x_BTD + self.again(y_BTD))
            moving = (next_BTD - y_BTD).abs().amax(self.axes, keepdim=True) > CLOSE
            y_BTD = torch.where(moving, next_BTD, y_BTD)
            if not moving.any():
                break
        return y_BTD, state


class MODEL(Recurrent):
    cell_class = RefiningCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=True)
