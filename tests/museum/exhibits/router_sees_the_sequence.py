"""A router weights its experts by the mean of the whole sequence, which includes later tokens.

Shwai-He/MEO#2 (sequence-level routing by the mean over tokens); piotrpiekos/MoSA#3 (experts that choose their tokens).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "causality"


class RoutedCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD * torch.sigmoid(x_BTD.mean(1, keepdim=True)), state


class MODEL(Recurrent):
    cell_class = RoutedCell
