"""A cumulative sum is taken along the wrong axis, the batch.

fla-org/flash-linear-attention#850 and #594 (over the heads).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "batch_independence"


class SummingCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD, torch.tanh(c_BTD.cumsum(0)), h_BD)


class MODEL(Recurrent):
    cell_class = SummingCell
