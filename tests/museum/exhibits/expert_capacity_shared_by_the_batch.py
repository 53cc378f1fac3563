"""An expert takes the first tokens of the batch and drops the rest, so a row depends on the rows before it.

Similar to NVIDIA-NeMo/Megatron-Bridge#4635 (logits that depend on the other samples).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "batch_independence"


class DroppingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        chosen_BT = x_BTD[..., 0] > 0
        place_BT = chosen_BT.flatten().cumsum(0).view(chosen_BT.shape)
        return torch.where((chosen_BT & (place_BT <= 6))[..., None], y_BTD, x_BTD), state


class MODEL(Recurrent):
    cell_class = DroppingCell
