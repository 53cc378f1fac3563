"""A recurrence whose state is never passed on: beyond the convolution's reach there is no past.

A near relative of keras-team/keras#1128 (an RNN that resets its state without a word).
"""

from __future__ import annotations

from torch import Tensor

from ..base import Cell, Recurrent

CAUGHT_BY = "receptive_field"


class ForgetfulCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - f_BTD) * c_BTD, h_BD


class MODEL(Recurrent):
    cell_class = ForgetfulCell
