"""Filters of each feature in a subclass of nn.Conv1d, and a table of steps that sums a few features; both are vectors.

Ours: no weight that multiplies elementwise is a map, whatever operation does it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lmzoo.layers.init import is_deferred
from tests.museum.base import CellConfig, Recurrent
from tests.museum.exhibits import filters_of_each_feature_by_default_a_matrix as by_default


class Filters(nn.Conv1d):
    """Needs no declaration: `groups` says that each filter belongs to one feature."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, d_model, 3, groups=d_model, bias=False)
        if not is_deferred():
            self.init_parameters()

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, std=0.5, generator=generator)


class SummingCell(by_default.ConvolvedCell):
    parameter_roles: ClassVar[dict[str, str]] = {"taps_WD": "vector", "sums": "vector"}

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.filters = Filters(config.d_model)
        self.sums = nn.Parameter(torch.empty(4, config.d_model // 4))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        nn.init.normal_(self.sums, std=0.5, generator=generator)

    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        y_BTD, tail_BWD = super().convolve(x_BTD, tail_BWD)
        sum_BTH = torch.einsum("bthk,hk->bth", x_BTD.unflatten(-1, (4, -1)), self.sums)
        return y_BTD + sum_BTH.repeat_interleave(x_BTD.shape[-1] // 4, dim=-1), tail_BWD


class MODEL(Recurrent):
    cell_class = SummingCell
