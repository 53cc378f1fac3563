"""A straight-through estimator leaves the values unchanged but lets the gradient reach later tokens.

Similar to fla-org/flash-linear-attention#875: the forward pass is correct, the gradient is not.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "gradient_causality"


class LeakingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        mean_B1D = x_BTD.mean(1, keepdim=True)
        return y_BTD + (mean_B1D - mean_B1D.detach()), state


class MODEL(Recurrent):
    cell_class = LeakingCell
