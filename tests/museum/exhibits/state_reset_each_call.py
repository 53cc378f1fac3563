"""Every call starts from a state of zeros and ignores the state that it is given.

keras-team/keras#1128.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


class ResettingCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD, c_BTD, torch.zeros_like(h_BD))


class MODEL(Recurrent):
    cell_class = ResettingCell
