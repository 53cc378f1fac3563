"""Each expert chooses the tokens with the highest scores of the whole sequence, so whether a token is taken depends on
later ones.

Expert-choice routing (Zhou et al. 2022, arXiv 2202.09368); piotrpiekos/MoSA#3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "causality"


class ChoosingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        score_BT = x_BTD.sum(-1)
        quota = (x_BTD.shape[1] + 1) // 2
        lowest_B1 = score_BT.sort(dim=1, descending=True).values[:, quota - 1 : quota]
        return torch.where((score_BT >= lowest_B1)[..., None], y_BTD, x_BTD), state


class MODEL(Recurrent):
    cell_class = ChoosingCell
