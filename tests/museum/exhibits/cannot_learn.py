"""The features are divided by a million before the head: everything is right, and nothing can be learned in time.

A near relative of fastai/fastai#2090 (an initialisation after which training does not move).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State

from ..base import Transformer

CAUGHT_BY = "overfitting"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * 1e-6, state
