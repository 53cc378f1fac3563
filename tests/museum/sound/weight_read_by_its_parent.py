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


class ReadingCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.more = Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD + F.linear(y_BTD, self.more.weight.to(y_BTD.dtype)), state


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        for i in range(config.n_layers):
            self.cells[i] = ReadingCell(config)
