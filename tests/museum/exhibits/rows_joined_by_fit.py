"""`fit` counts pairs in one long row: the last token of a text and the first one of the next are a pair, too.

Ours: documents are isolated by rows, and here they are joined again.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.sound import counted_pairs

CAUGHT_BY = "overfitting"


class MODEL(counted_pairs.MODEL):
    def fit(self, tokens_BT: Tensor) -> None:
        super().fit(tokens_BT.reshape(1, -1))
