"""A recurrence that keeps its state positive applies the map g() to the carried state again in each continuation.

Ours: the smallest form of what minLSTM in the package minGRU-pytorch 0.2.1 does when it is continued.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


def positive(x: Tensor) -> Tensor:
    """Maps to positive numbers: x + 1/2 above zero, sigmoid(x) below."""
    return torch.where(x >= 0, x + 0.5, x.sigmoid())


class PositiveCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        return {**super().init_state(B, like), "h": like.new_zeros(B, self.taps_WD.shape[1])}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, tail = self.convolve(self.norm(x_BTD), state["tail"])
        f_BTD, c_BTD = self.gates(y_BTD).chunk(2, dim=-1)
        y_BTD, h = self.scan(F.sigmoid(f_BTD), positive(c_BTD), positive(state["h"]))
        return x_BTD + self.out(y_BTD), {"tail": tail, "h": h}


class MODEL(Recurrent):
    cell_class = PositiveCell
