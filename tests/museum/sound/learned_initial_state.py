"""The state before the first token is learned: a parameter, repeated for each row.

Similar to craffel/nntools#17 (a learned initial state must not depend on the batch size).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class StartingCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.start_D = nn.Parameter(torch.zeros(config.d_model))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        nn.init.zeros_(self.start_D)

    def init_state(self, B: int, like: Tensor) -> State:
        return {**super().init_state(B, like), "h": self.start_D.to(like.dtype).repeat(B, 1)}


class MODEL(Recurrent):
    cell_class = StartingCell
