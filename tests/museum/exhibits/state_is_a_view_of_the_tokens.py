"""The state holds the last tokens as a view of the tensor that the caller gave, which the caller may use again.

Ours: a loop that writes every new token into one tensor changes what the model remembers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "state_is_a_value"


class MODEL(Recurrent):
    """A recurrent model whose features also depend on the token before."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.before = torch.nn.Embedding(config.vocab_size + 1, config.d_model)  # the last row: there is none

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        last_B1 = like.new_full((batch_size, 1), self.config.vocab_size, dtype=torch.long)
        return [*super().init_layers(batch_size, max_len, like), last_B1]

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        *cells, first_B1 = self.init_layers(len(idx_BT), 0, self.head.weight) if state is None else state
        x_BTD, after = super().features(idx_BT, cells)
        x_BTD = x_BTD + self.before(torch.cat([first_B1, idx_BT[:, :-1]], dim=1))
        return x_BTD, None if state is None else [*after, idx_BT[:, -1:]]
