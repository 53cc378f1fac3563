"""Stochastic depth asks Python's `random` which layers to leave out, so torch's seed does not repeat a run.

Ours: what is random in training must be decided by torch's global seed.
"""

from __future__ import annotations

import random
from dataclasses import replace

from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "global_state"


class SkippingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return (x_BTD if self.training and random.random() < 0.5 else y_BTD), state


class MODEL(Recurrent):
    cell_class = SkippingCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=True)
