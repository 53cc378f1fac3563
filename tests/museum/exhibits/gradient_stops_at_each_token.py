"""The state is detached between tokens: no gradient reaches the past.

Similar to fla-org/flash-linear-attention#875 (a sum computed outside the graph).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "float64_gradients"


class DetachedCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        hs = []
        for f_BD, c_BD in zip(f_BTD.unbind(1), c_BTD.unbind(1), strict=True):
            h_BD = f_BD * h_BD.detach() + (1 - f_BD) * c_BD
            hs.append(h_BD)
        return torch.stack(hs, dim=1), h_BD


class MODEL(Recurrent):
    cell_class = DetachedCell
