"""The filters of a convolution of each feature, in a parameter (D, 1, W) of a module of one's own, are matrices.

Ours: three dimensions look like a stack of maps, but each number multiplies one feature; Muon mixes the filters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "roles"


class Filters(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model, 1, 3))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, std=0.5, generator=generator)

    def forward(self, x_BDT: Tensor) -> Tensor:
        return F.conv1d(x_BDT, self.weight, groups=x_BDT.shape[1])


class ConvolvedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.filters: nn.Module = Filters(config.d_model)

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, tail = super().convolve(x_BTD, tail_BWD)
        return y_BTD + self.filters(torch.cat([tail_BWD, x_BTD], dim=1).mT).mT, tail


class MODEL(Recurrent):
    cell_class = ConvolvedCell
