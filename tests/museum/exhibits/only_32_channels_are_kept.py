"""The state keeps the first 32 channels; wider models start the others from zeros in every call.

triton-lang/triton#621 (a width that is hard-coded, so that only the first channels are read).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "long_decoding"


class NarrowCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        D = h_BD.shape[1]
        return super().scan(f_BTD, c_BTD, F.pad(h_BD[:, :32], (0, max(0, D - 32))))


class MODEL(Recurrent):
    cell_class = NarrowCell
