"""Counts are kept in int16: a pair that occurs more than 32,767 times in the text has a negative count.

Ours: short texts are counted exactly, and a frequent pair of a long one gets no probability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.sound import counted_pairs

CAUGHT_BY = "overfitting"


class MODEL(counted_pairs.MODEL):
    def fit(self, tokens_BT: Tensor) -> None:
        super().fit(tokens_BT)
        self.counts_VV.copy_(self.counts_VV.to(torch.int16).clamp(min=0))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return (1.0 + self.counts_VV[idx_BT]).log(), state
