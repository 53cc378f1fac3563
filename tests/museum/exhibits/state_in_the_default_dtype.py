"""The state is made without the dtype and the device of the model: float32 on the CPU, also for a float64 model.

Ours: the first GPU, or the first comparison in float64, ends in an error or in lost digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_dtype"


class DefaultCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        return super().init_state(B, like) | {"h": torch.zeros(B, self.taps_WD.shape[1])}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, after = super().forward(x_BTD, state | {"h": state["h"].to(x_BTD)})
        return y_BTD, after | {"h": after["h"].to(state["h"])}


class MODEL(Recurrent):
    cell_class = DefaultCell
