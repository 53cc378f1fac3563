"""Every `every`-th layer looks back, the others see their token alone; few layers know no larger period.

Ours: a setting that counts layers has no effect beyond their number, which is no limit of the setting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.configs import require_positive
from tests.museum.base import Cell, CellConfig, Recurrent


@dataclass(frozen=True, kw_only=True)
class PeriodConfig(CellConfig):
    n_layers: int = 4
    every: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "every")


class Blind(Cell):
    def convolve(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        return x_BTD * self.taps_WD.sum(0), tail_BWD

    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - f_BTD) * c_BTD, h_BD


class MODEL(Recurrent):
    config_class = PeriodConfig

    def __init__(self, config: PeriodConfig) -> None:
        super().__init__(config)
        kinds = (Cell if i % config.every == 0 else Blind for i in range(config.n_layers))
        self.cells = torch.nn.ModuleList(kind(config) for kind in kinds)
