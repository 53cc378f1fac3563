"""The state is kept as an attribute of the module from one call to the next.

langchain-ai/langchain#2565 (RWKV: the state of one request was carried into the next).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "same_seed"


class StatefulCell(Cell):
    h: Tensor | None = None

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        if self.h is not None and self.h.shape == h_BD.shape:
            h_BD = self.h
        y_BTD, h_BD = super().scan(f_BTD, c_BTD, h_BD)
        self.h = h_BD.detach()
        return y_BTD, h_BD


class MODEL(Recurrent):
    cell_class = StatefulCell
