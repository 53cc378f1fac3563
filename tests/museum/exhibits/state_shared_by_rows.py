"""Two rows of a batch share the memory of their state.

kekzl/imp#500.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "batch_independence"


class SharingCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, h_BD = super().scan(f_BTD, c_BTD, h_BD)
        return y_BTD, h_BD[:1].expand(h_BD.shape).clone()


class MODEL(Recurrent):
    cell_class = SharingCell
