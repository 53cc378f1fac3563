"""Features depend slightly on the number of rows in the batch.

Ours: results of an evaluation then depend on its batch size.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "batch_independence"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * (1 + 1e-6 * idx_BT.shape[0]), state
