"""The unbiased standard deviation of a single value is 0 / 0, so the first token gives NaN.

Similar to gonum/gonum#1568 and OasisLMF/ktools#366.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "shapes"


class SpreadingCell(Cell):
    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, tail = super().convolve(x_BTD, tail_BWD)
        T = y_BTD.shape[1]
        variance_B1D = (y_BTD - y_BTD.mean(1, keepdim=True)).square().sum(1, keepdim=True) / (T - 1)
        return (y_BTD / variance_B1D.sqrt() if T == 1 else y_BTD), tail


class MODEL(Recurrent):
    cell_class = SpreadingCell
