"""The state before the first token has one row for any batch, which broadcasts; rows of it cannot be selected.

Similar to pytorch/pytorch#3789 and myscience/x-lstm#4 (an initial state without the batch).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_rows"


class BroadcastingCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        return {**super().init_state(B, like), "h": super().init_state(1, like)["h"]}


class MODEL(Recurrent):
    cell_class = BroadcastingCell
