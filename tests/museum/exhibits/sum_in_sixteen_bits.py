"""The mean of the past is made of a sum that has the model's dtype: in a copy in bfloat16 it soon stays as it is.

Ours: near 256 the numbers of bfloat16 are 2 apart, so that what is less than 1 is added in vain.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent
from tests.museum.sound.mean_of_the_past import MeanCell

CAUGHT_BY = "state_dtype"


class NarrowCell(MeanCell):
    def init_state(self, B: int, like: Tensor) -> State:
        state = super().init_state(B, like)
        return {**state, "sum": state["sum"].to(like.dtype)}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, after = super().forward(x_BTD, state)
        return y_BTD, {**after, "sum": after["sum"].to(state["sum"].dtype)}


class MODEL(Recurrent):
    cell_class = NarrowCell
