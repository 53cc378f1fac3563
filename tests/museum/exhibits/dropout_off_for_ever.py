"""The first `eval()` sets the dropout rate to 0, and `train()` does not bring it back.

Similar to tk-rusch/coRNN#1 (training goes on as in evaluation after the first evaluation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "train_mode"


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(CellConfig):
    dropout: float = 0.0


class ForgettingCell(Cell):
    def __init__(self, config: DropoutConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)

    def train(self, mode: bool = True) -> Any:
        if not mode:
            self.dropout.p = 0.0
        return super().train(mode)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return x_BTD + self.dropout(y_BTD - x_BTD), state


class MODEL(Recurrent):
    config_class = DropoutConfig
    cell_class = ForgettingCell
