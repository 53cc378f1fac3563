"""The features are divided by a million before the head: the model is correct, but learns far too slowly.

Similar to fastai/fastai#2090 (an initialization with which training makes no progress).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "overfitting"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * 1e-6, state
