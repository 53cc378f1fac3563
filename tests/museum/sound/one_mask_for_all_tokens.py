"""Dropout draws one mask per row and uses it for all tokens of the row.

Variational dropout (Gal & Ghahramani 2015, arXiv 1512.05287).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(CellConfig):
    dropout: float = 0.0


class MaskedCell(Cell):
    def __init__(self, config: DropoutConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        mask_B1D = self.dropout(torch.ones_like(x_BTD[:, :1]))
        return x_BTD + (y_BTD - x_BTD) * mask_B1D, state


class MODEL(Recurrent):
    config_class = DropoutConfig
    cell_class = MaskedCell
