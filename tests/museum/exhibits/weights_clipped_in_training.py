"""A pass in train mode makes a matrix smaller when what it gives exceeds a limit: the model changes without a step.

Ours: the limit is far above what a tiny model with usual weights reaches, as that of MuonClip (arXiv 2507.20534) is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "train_mode"
LIMIT = 100.0


class ClippedCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        if self.training:
            with torch.no_grad():
                largest = self.gates(self.norm(x_BTD)).abs().max()
                self.gates.weight.mul_((LIMIT / largest).clamp(max=1))
        return super().forward(x_BTD, state)


class MODEL(Recurrent):
    cell_class = ClippedCell
