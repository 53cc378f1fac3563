"""Positions are counted from the end of the input: they change when later tokens are added.

Similar to huggingface/transformers#21080, where padding moved every position.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Learned

CAUGHT_BY = "causality"


class MODEL(Learned):
    def positions_of(self, position: int, T: int, state: State) -> Tensor:
        return super().positions_of(position, T, state).flip(0)
