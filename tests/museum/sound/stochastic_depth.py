"""In training, a layer is skipped for some of the rows.

Stochastic depth (Huang et al. 2016, arXiv 1603.09382), drawn for each row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


@dataclass(frozen=True, kw_only=True)
class SkippingConfig(CellConfig):
    skip: float = 0.2


class SkippingCell(Cell):
    def __init__(self, config: SkippingConfig) -> None:
        super().__init__(config)
        self.skip = config.skip

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        if not self.training or not self.skip:
            return y_BTD, state
        kept_B = torch.rand(len(x_BTD), device=x_BTD.device) >= self.skip
        return x_BTD + (y_BTD - x_BTD) * (kept_B / (1 - self.skip)).to(x_BTD.dtype)[:, None, None], state


class MODEL(Recurrent):
    config_class = SkippingConfig
    config: SkippingConfig
    cell_class = SkippingCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=self.config.skip > 0)
