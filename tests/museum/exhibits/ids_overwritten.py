"""Ids that count as rare are replaced in place, in the tensor of the caller, which then trains on other texts.

Ours: decoding and forward agree, because both get the changed ids.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent

CAUGHT_BY = "shapes"


class MODEL(Recurrent):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        idx_BT[idx_BT % 5 == 4] = 0
        return super().features(idx_BT, state)
