"""A map is applied again until every token of the batch has halted, so the number of steps depends on the data.

Adaptive computation time (Graves 2016, arXiv 1603.08983), at most four steps.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class HaltingCell(Cell):
    """A token that has halted keeps its features, whatever the others do."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.halt = Linear(config.d_model, 1)
        self.step = Linear(config.d_model, config.d_model)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        left_BT1 = torch.ones_like(x_BTD[..., :1])
        for _ in range(4):
            if not (left_BT1 > 0.3).any():
                break
            share_BT1 = torch.where(left_BT1 > 0.3, left_BT1 * torch.sigmoid(self.halt(x_BTD)), 0.0)
            left_BT1 = left_BT1 - share_BT1
            x_BTD = x_BTD + share_BT1 * torch.tanh(self.step(x_BTD))
        return x_BTD, state


class MODEL(Recurrent):
    cell_class = HaltingCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, data_dependent_shapes=True)
