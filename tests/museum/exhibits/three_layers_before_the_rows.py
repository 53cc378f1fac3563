"""The states of three layers are one tensor with the layers first, so a batch of three rows looks right.

Ours: an axis was taken for the batch because it had as many entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "state_rows"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.cells.append(self.cell_class(config))

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        pieces: list[Any] = super().init_layers(batch_size, max_len, like)
        return [piece["tail"] for piece in pieces], torch.stack([piece["h"] for piece in pieces])

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        if state is None:
            tails, hs = self.init_layers(len(idx_BT), 0, self.tokens(idx_BT))
        else:
            tails, hs = state
        given = [{"tail": tail, "h": h} for tail, h in zip(tails, hs, strict=True)]
        x_BTD, after = super().features(idx_BT, given)
        return x_BTD, None if state is None else ([p["tail"] for p in after], torch.stack([p["h"] for p in after]))
