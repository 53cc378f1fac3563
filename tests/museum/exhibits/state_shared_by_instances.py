"""The initial state is created once for the class, and every decoding writes into it.

rajveer43/VeloxQuant-MLX#59 (one list of caches for all generations), open-lm-engine/lm-engine#491 (mutable defaults).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_is_a_value"


class SharedCell(Cell):
    first: ClassVar[dict[tuple[int, int], dict[str, Tensor]]] = {}

    def init_state(self, B: int, like: Tensor) -> State:
        return self.first.setdefault((B, self.taps_WD.shape[1]), super().init_state(B, like))

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, after_BD = super().scan(f_BTD, c_BTD, h_BD.clone())
        return y_BTD, h_BD.copy_(after_BD.detach())


class MODEL(Recurrent):
    cell_class = SharedCell
