"""A part of the state is a list of Python numbers, so selecting rows of the state does not select its entries.

Similar to huggingface/transformers#46612 (states that a beam search silently did not reorder).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "state_rows"


class CountingCell(Cell):
    def init_state(self, B: int, like: Tensor) -> State:
        return {**super().init_state(B, like), "sums": [0.0] * B}

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        sums = torch.tensor(state["sums"], dtype=x_BTD.dtype)[: x_BTD.shape[0], None] + x_BTD.sum(-1).cumsum(1)
        y_BTD, after = super().forward(x_BTD, state)
        return y_BTD + torch.tanh(sums)[..., None], {**after, "sums": sums[:, -1].tolist()}


class MODEL(Recurrent):
    cell_class = CountingCell
