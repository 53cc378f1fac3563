"""The recurrent state is kept in bfloat16, so it is rounded at every token.

NVIDIA/TensorRT-Model-Connect#725.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_dtype"


class RoundedCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        state = super().init_state(B, like)
        return {**state, "h": state["h"].bfloat16()}

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, h_BD = super().scan(f_BTD, c_BTD, h_BD.to(c_BTD.dtype))
        return y_BTD, h_BD.bfloat16()


class MODEL(Recurrent):
    cell_class = RoundedCell
