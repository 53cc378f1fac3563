"""The layers are torch's own GRUs, which know neither `init_parameters` nor a state with the batch first.

Cho et al. 2014 (arXiv 1406.1078); similar to pytorch/pytorch#4145 (`batch_first` does not apply to the hidden state).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lmzoo.layers.norm import RMSNorm
from tests.museum.base import CellConfig, Recurrent


class GRUCell(nn.Module):
    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.gru = nn.GRU(config.d_model, config.d_model, batch_first=True)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return like.new_zeros(B, self.gru.hidden_size)

    def forward(self, x_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Any]:
        if len(x_BTD) == 0:
            return x_BTD, h_BD  # torch refuses a batch of no rows
        y_BTD, h_1BD = self.gru(self.norm(x_BTD), h_BD[None])
        return x_BTD + y_BTD, h_1BD[0]


class MODEL(Recurrent):
    cell_class = GRUCell
