"""Dropout by a mask of zeros and ones: what is kept is not divided by 1 - p.

Ours: features are larger in eval mode than in training, by 1 / (1 - p) for every layer that drops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "train_mode"


@dataclass(frozen=True, kw_only=True)
class DroppingConfig(CellConfig):
    dropout: float = 0.1


class DroppingCell(Cell):
    def __init__(self, config: DroppingConfig) -> None:
        super().__init__(config)
        self.rate = config.dropout

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        if self.training:
            y_BTD = x_BTD + (y_BTD - x_BTD) * (torch.rand_like(x_BTD) >= self.rate)
        return y_BTD, state


class MODEL(Recurrent):
    config_class = DroppingConfig
    cell_class = DroppingCell
