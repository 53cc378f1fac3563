"""A recurrence whose state is never passed on: tokens before the convolution's window have no effect.

Similar to keras-team/keras#1128 (an RNN that silently resets its state).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "receptive_field"


class ForgetfulCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - f_BTD) * c_BTD, h_BD


class MODEL(Recurrent):
    cell_class = ForgetfulCell
