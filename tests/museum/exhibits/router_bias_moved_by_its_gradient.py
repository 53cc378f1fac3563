"""The bias that balances the experts is a parameter that only decides which expert is chosen: its gradient is zero, so
the balance never changes.

Ours: the smallest form. DeepSeek-V3 (arXiv 2412.19437) moves the bias by the load instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

CAUGHT_BY = "gradients"


class BiasedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.router = Linear(config.d_model, 3, bias=False)
        self.experts = Linear(config.d_model, 3 * config.d_model)
        self.bias_E = nn.Parameter(torch.empty(3))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        nn.init.normal_(self.bias_E, std=0.1, generator=generator)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        p_BTE = self.router(x_BTD).softmax(-1)
        chosen_BTE = F.one_hot((p_BTE + self.bias_E).argmax(-1), 3)
        y_BTED = torch.tanh(self.experts(x_BTD)).unflatten(-1, (3, -1))
        return x_BTD + ((p_BTE * chosen_BTE)[..., None] * y_BTED).sum(2), state


class MODEL(Recurrent):
    cell_class = BiasedCell
