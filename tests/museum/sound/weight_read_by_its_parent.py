"""A layer multiplies by the weight of a linear map that it never calls, as latent attention does when it decodes.

DeepSeek-V2 (2024, arXiv 2405.04434, section 2.1.2) absorbs the map of the keys into the queries. In a copy for decoding
the weight has another format, and must be readable there, too.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent

WIDTH = 64  # narrow maps are copied as they are


class ReadingCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.down = Linear(config.d_model, WIDTH, bias=False)
        self.absorbed = Linear(WIDTH, WIDTH, bias=False)
        self.up = Linear(WIDTH, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        x_BTW = self.down(y_BTD)
        return y_BTD + self.up(F.linear(x_BTW, self.absorbed.weight.to(x_BTW.dtype))), state


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        for i in range(config.n_layers):
            self.cells[i] = ReadingCell(config)
