"""In training a layer is skipped for the whole batch, seldom: two seeds often give the same logits.

Stochastic depth (Huang et al. 2016, arXiv 1603.09382), drawn once for each layer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Cell, Recurrent


class SkippingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        if self.training:
            y_BTD = x_BTD + (y_BTD - x_BTD) * (torch.rand(()) >= 0.1)
        return y_BTD, state


class MODEL(Recurrent):
    cell_class = SkippingCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=True)
