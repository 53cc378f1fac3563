"""`fit` adds the counts of a text to those of the text before: a model that is fitted twice knows both.

Ours: `fit` replaces what an earlier call has found, so that a run that is prolonged can fit again.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.sound import counted_pairs

CAUGHT_BY = "overfitting"


class MODEL(counted_pairs.MODEL):
    def fit(self, tokens_BT: Tensor) -> None:
        before_VV = self.counts_VV.clone()
        super().fit(tokens_BT)
        self.counts_VV += before_VV
