"""A compressed memory is updated with a whole segment before the tokens of that segment read it.

dingo-actual/infini-transformer#4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "causality"


class SegmentCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD + torch.tanh(state["h"])[:, None], state


class MODEL(Recurrent):
    cell_class = SegmentCell
