"""Noise is declared, but it is drawn in the first pass and kept for all later ones.

Ours: the draw was moved out of the pass to save time.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Recurrent

CAUGHT_BY = "train_mode"


class MODEL(Recurrent):
    noise_D: Tensor | None = None

    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=True)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if self.training:
            if self.noise_D is None:
                self.noise_D = 0.1 * torch.randn_like(x_BTD[0, 0])
            x_BTD = x_BTD + self.noise_D
        return x_BTD, state
