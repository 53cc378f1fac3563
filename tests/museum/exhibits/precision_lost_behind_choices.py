"""Declares that it chooses, and loses most of its features in bfloat16 for another reason.

Ours: `lost_in_half_precision` with a declaration that excuses other choices, and nothing else.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.choosing import Choosing

CAUGHT_BY = "bfloat16"


class MODEL(Choosing):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return (x_BTD + 256.0) - 256.0, state
