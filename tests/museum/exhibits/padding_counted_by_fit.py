"""`fit` counts the padding at the end of short rows as token 0.

Ours: the rows of isolated documents end with IGNORE_INDEX, which is set to 0 so that it can be counted.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.sound import counted_pairs

CAUGHT_BY = "overfitting"


class MODEL(counted_pairs.MODEL):
    def fit(self, tokens_BT: Tensor) -> None:
        super().fit(tokens_BT.clamp(min=0))
