"""The state is only a key to tensors that the model keeps, so a clone shares memory with the original.

Similar to huggingface/transformers#32159 (a cache that could not be copied).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "state_is_a_value"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.kept: list[State] = []

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        self.kept.append(super().init_layers(batch_size, max_len, like))
        return len(self.kept) - 1

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        if state is None:
            given = super().init_layers(idx_BT.shape[0], 0, self.head.weight)
            return super().features(idx_BT, given)
        x_BTD, self.kept[state] = super().features(idx_BT, self.kept[state])
        return x_BTD, state
