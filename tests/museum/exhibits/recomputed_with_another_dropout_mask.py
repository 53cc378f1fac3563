"""A block is computed again in the backward pass with another dropout mask than in the forward pass.

Ours: `checkpoint(..., preserve_rng_state=False)`, which saves time and is right only without random numbers inside.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lmzoo.layers.dropout import Dropout
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "gradients"


class RecomputedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(0.0)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        if not self.training or not torch.is_grad_enabled():
            return self.dropout(y_BTD), state
        return checkpoint(self.dropped, y_BTD, use_reentrant=False, preserve_rng_state=False), state

    def dropped(self, y_BTD: Tensor) -> Tensor:
        return self.dropout(y_BTD).square().tanh()


class MODEL(Recurrent):
    cell_class = RecomputedCell
