"""The state is a dict by the number of the layer: a saved one has texts as keys, and is not found again.

Ours: nothing but saving a state notices what its keys are.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent

CAUGHT_BY = "state_saved"


class MODEL(Recurrent):
    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return dict(enumerate(super().init_layers(batch_size, max_len, like)))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        given = None if state is None else list(state.values())
        x_BTD, after = super().features(idx_BT, given)
        return x_BTD, None if after is None else dict(enumerate(after))
