"""A matrix whose weights are rounded to -1, 0 and 1 times a scale, trained by the gradient of the weights themselves.

BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764), with the straight-through gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.ops.straight_through import straight_through
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class Ternary(Linear):
    def forward(self, input: Tensor) -> Tensor:
        scale = self.weight.detach().abs().mean().clamp(min=1e-5)
        rounded = (self.weight / scale).round().clamp(-1, 1) * scale
        return F.linear(input, straight_through(rounded, self.weight), self.bias)


class TernaryCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.map = Ternary(config.d_model, config.d_model)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return x_BTD + self.map(y_BTD), state


class MODEL(Recurrent):
    cell_class = TernaryCell
