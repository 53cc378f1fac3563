"""A part of the state has the batch on its second axis, as in torch.nn.LSTM, so rows are not selected.

openvinotoolkit/openvino.genai#45 (the batch was assumed to be the first axis, but is the second).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_rows"


class TransposedCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        state = super().init_state(B, like)
        return {**state, "tail": state["tail"].transpose(0, 1)}

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, tail_BWD = super().convolve(x_BTD, tail_BWD.transpose(0, 1))
        return y_BTD, tail_BWD.transpose(0, 1)


class MODEL(Recurrent):
    cell_class = TransposedCell
