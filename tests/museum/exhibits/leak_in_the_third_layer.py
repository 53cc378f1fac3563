"""Every third layer adds the mean over all positions, also later ones; the others are causal.

Ours: a model reduced to two layers would pass. Similar to Shwai-He/MEO#2 (a mean over the whole sequence).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "causality"


@dataclass(frozen=True, kw_only=True)
class DeepConfig(CellConfig):
    n_layers: int = 12


class AveragingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD + x_BTD.mean(1, keepdim=True), state


class MODEL(Recurrent):
    config_class = DeepConfig

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        for i in range(2, config.n_layers, 3):
            self.cells[i] = AveragingCell(config)
