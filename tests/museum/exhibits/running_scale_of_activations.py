"""Features are divided by a running size of all batches so far, in both modes; only training moves it.

Ours: both modes agree and no batch is seen by itself, but what a model computes depends on how its batches were cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "train_mode"


class MODEL(Recurrent):
    size: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.register_buffer("size", torch.ones(()))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        y_BTD = x_BTD / self.size
        if self.training:
            with torch.no_grad():
                self.size.lerp_(x_BTD.square().mean().sqrt().to(self.size.dtype), 0.1)
        return y_BTD, state
