"""The layers are torch's LSTMs, and the rate of the dropout between them is in an attribute named `p`.

Ours: oneDNN has no LSTM in bfloat16 for some CPUs, and a rate that is not zero by default looked like a fault.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.norm import RMSNorm
from tests.museum.base import CellConfig, Recurrent


@dataclass(frozen=True, kw_only=True)
class DroppedConfig(CellConfig):
    dropout: float = 0.2


class LSTMCell(nn.Module):
    def __init__(self, config: DroppedConfig) -> None:
        super().__init__()
        self.norm, self.p = RMSNorm(config.d_model), config.dropout
        self.lstm = nn.LSTM(config.d_model, config.d_model, batch_first=True)

    def init_state(self, B: int, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_zeros(B, self.lstm.hidden_size), like.new_zeros(B, self.lstm.hidden_size)

    def forward(self, x_BTD: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if len(x_BTD) == 0:
            return x_BTD, state  # torch refuses a batch of no rows
        y_BTD, (h_1BD, c_1BD) = self.lstm(self.norm(x_BTD), tuple(part[None] for part in state))
        return x_BTD + F.dropout(y_BTD, self.p, self.training), (h_1BD[0], c_1BD[0])


class MODEL(Recurrent):
    config_class = DroppedConfig
    cell_class = LSTMCell
