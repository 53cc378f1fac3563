"""A balance loss computed from the experts' loads only: counts have no gradient, so it balances nothing.

Similar to huggingface/transformers#28255 (an auxiliary loss that does not balance as its paper says).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.losses import auxiliary_loss
from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "auxiliary"


class ChoosingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        chosen_BT = y_BTD[..., :4].argmax(-1)
        load_E = F.one_hot(chosen_BT, 4).to(torch.float32).mean((0, 1))
        auxiliary_loss("balance", 4 * load_E.square().sum())
        return y_BTD, state


class MODEL(Recurrent):
    cell_class = ChoosingCell
