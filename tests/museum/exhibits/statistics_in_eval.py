"""A buffer of statistics, which nothing reads yet, is moved by every pass, also in evaluation.

Ours: `self.training` was forgotten; a model that is evaluated is not the one that was saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "global_state"


class MODEL(Recurrent):
    load_D: Tensor

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.register_buffer("load_D", torch.zeros(config.d_model))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        with torch.no_grad():
            self.load_D += x_BTD.abs().mean((0, 1)).to(self.load_D.dtype)
        return x_BTD, state
