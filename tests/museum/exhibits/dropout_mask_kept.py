"""One dropout mask for all tokens of a row, drawn anew only when the number of rows changes.

Ours: a batch size rarely changes, so that a whole training drops the same features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "train_mode"


@dataclass(frozen=True, kw_only=True)
class LockedConfig(CellConfig):
    dropout: float = 0.0


class MODEL(Recurrent):
    config_class = LockedConfig
    config: LockedConfig
    kept_B1D: Tensor | None = None

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if self.training and self.config.dropout:
            if self.kept_B1D is None or len(self.kept_B1D) != len(x_BTD):
                rate = self.config.dropout
                self.kept_B1D = (torch.rand_like(x_BTD[:, :1]) >= rate).to(x_BTD.dtype) / (1 - rate)
            x_BTD = x_BTD * self.kept_B1D
        return x_BTD, state
