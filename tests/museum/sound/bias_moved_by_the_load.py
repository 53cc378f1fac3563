"""In training, each forward pass moves a bias of the router, so that the next pass sends less to a loaded expert.

Balancing without an auxiliary loss (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class BalancedCell(Cell):
    """Each token takes one of three experts, which are parts of one dense map."""

    bias_E: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.router = Linear(config.d_model, 3, bias=False)
        self.experts = Linear(config.d_model, 3 * config.d_model)
        self.register_buffer("bias_E", torch.zeros(3))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        self.bias_E.zero_()

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        p_BTE = self.router(x_BTD).softmax(-1)
        chosen_BTE = torch.nn.functional.one_hot((p_BTE + self.bias_E).argmax(-1), 3)
        if self.training:
            with torch.no_grad():
                load_E = chosen_BTE.to(self.bias_E.dtype).mean((0, 1))
                self.bias_E -= 1e-3 * (load_E - load_E.mean()).sign()
        y_BTED = torch.tanh(self.experts(x_BTD)).unflatten(-1, (3, -1))
        return x_BTD + ((p_BTE * chosen_BTE)[..., None] * y_BTED).sum(2), state


class MODEL(Recurrent):
    cell_class = BalancedCell
