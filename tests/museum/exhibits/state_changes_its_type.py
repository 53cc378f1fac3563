"""The initial state is float32, and decoding returns float64.

Similar to NovaSky-AI/SkyRL#1725 (one side in float32, the other in bfloat16, and no error).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_dtype"


class WideningCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, h_BD = super().scan(f_BTD.double(), c_BTD.double(), h_BD.double())
        return y_BTD.to(f_BTD.dtype), h_BD


class MODEL(Recurrent):
    cell_class = WideningCell
