"""The initial state is ignored when the batch has one row.

vllm-project/vllm#22034.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


class OneRowCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        alone = h_BD.shape[0] == 1 and f_BTD.shape[1] > 1
        return super().scan(f_BTD, c_BTD, torch.zeros_like(h_BD) if alone else h_BD)


class MODEL(Recurrent):
    cell_class = OneRowCell
