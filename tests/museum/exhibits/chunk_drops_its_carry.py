"""A chunked scan in which every chunk starts from the initial state of the first chunk.

state-spaces/mamba#641 (whole and chunked inference differ).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "decoding"


class ChunkedCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        pieces = [
            super(ChunkedCell, self).scan(f, c, h_BD) for f, c in zip(f_BTD.split(8, 1), c_BTD.split(8, 1), strict=True)
        ]
        return torch.cat([y for y, _ in pieces], dim=1), pieces[-1][1]


class MODEL(Recurrent):
    cell_class = ChunkedCell
