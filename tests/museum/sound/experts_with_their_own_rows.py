"""Each token goes to one expert, and each expert computes a number of rows that depends on the tokens.

Switch Transformer (Fedus et al. 2021, arXiv 2101.03961) without a capacity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class RoutedCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.second_norm = RMSNorm(config.d_model)
        self.router = Linear(config.d_model, 3, bias=False)
        self.experts = nn.ModuleList(Linear(config.d_model, config.d_model) for _ in range(3))

    def route(self, x_ND: Tensor) -> Tensor:
        p_NE = self.router(x_ND).softmax(-1)
        weight_N, chosen_N = p_NE.max(-1)
        y_ND = torch.zeros_like(x_ND)
        for e, expert in enumerate(self.experts):
            rows = (chosen_N == e).nonzero().squeeze(-1)
            y_ND = y_ND.index_add(0, rows, (weight_N[rows, None] * expert(x_ND[rows])).to(y_ND.dtype))
        return y_ND

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        return x_BTD + self.route(self.second_norm(x_BTD).flatten(0, 1)).view_as(x_BTD), state


class MODEL(Recurrent):
    cell_class = RoutedCell
