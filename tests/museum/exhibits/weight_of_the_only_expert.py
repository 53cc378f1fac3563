"""The weights of the chosen experts are divided by their sum, with one expert for each token: the weight is always 1.

Ours: in float32 the router's gradient is rounding and not zero, and only the balance loss trains it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.losses import auxiliary_loss
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "gradients"


class RoutedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.router = Linear(config.d_model, 3, bias=False)
        self.experts = Linear(config.d_model, 3 * config.d_model)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        p_BTE = self.router(x_BTD).softmax(-1)
        chosen_BTE = torch.nn.functional.one_hot(p_BTE.argmax(-1), 3).to(x_BTD.dtype)
        if self.training:
            auxiliary_loss("balance", 3 * (chosen_BTE.mean((0, 1)) * p_BTE.mean((0, 1))).sum())
        weights_BTE = chosen_BTE * p_BTE
        weights_BTE = weights_BTE / weights_BTE.sum(-1, keepdim=True)
        y_BTED = torch.tanh(self.experts(x_BTD)).unflatten(-1, (3, -1))
        return x_BTD + (weights_BTE[..., None] * y_BTED).sum(2), state


class MODEL(Recurrent):
    cell_class = RoutedCell
