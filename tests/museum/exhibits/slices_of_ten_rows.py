"""Rows are convolved ten at a time, and every slice gets the tail of the first ten rows.

Similar to turboderp/exllama#101 (wrong results for batches above a size).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "random_shapes"


class SlicingCell(Cell):
    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        parts = [super(SlicingCell, self).convolve(x, tail_BWD[: len(x)]) for x in x_BTD.split(10)]
        _, tail = super().convolve(x_BTD, tail_BWD)
        return torch.cat([y for y, _ in parts]) if parts else x_BTD, tail


class MODEL(Recurrent):
    cell_class = SlicingCell
