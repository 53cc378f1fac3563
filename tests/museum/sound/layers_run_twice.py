"""The same layers run twice, one after the other, with a state for each run.

Universal transformers (Dehghani et al. 2018, arXiv 1807.03819) and ALBERT (arXiv 1909.11942).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent


class MODEL(Recurrent):
    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return [super(MODEL, self).init_layers(batch_size, max_len, like) for _ in range(2)]

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        given = self.init_layers(len(idx_BT), 0, x_BTD) if state is None else state
        for pieces in given:
            new = []
            for cell, piece in zip(self.cells, pieces, strict=True):
                x_BTD, piece = cell(x_BTD, piece)
                new.append(piece)
            after.append(new)
        return self.norm(x_BTD), None if state is None else after
