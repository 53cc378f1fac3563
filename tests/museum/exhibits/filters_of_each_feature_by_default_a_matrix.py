"""The filters of a convolution of each feature, a subclass of nn.Conv1d with groups, are matrices by default.

Ours: three dimensions look like a stack of maps, but each number multiplies one feature; Muon mixes the filters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.init import is_deferred
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "roles"


class Filters(nn.Conv1d):
    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, d_model, 3, groups=d_model, bias=False)
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, std=0.5, generator=generator)


class ConvolvedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.filters = Filters(config.d_model)

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, tail = super().convolve(x_BTD, tail_BWD)
        return y_BTD + self.filters(torch.cat([tail_BWD, x_BTD], dim=1).mT).mT, tail


class MODEL(Recurrent):
    cell_class = ConvolvedCell
