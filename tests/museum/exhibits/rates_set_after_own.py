"""A layer sets its rates in its constructor, after `own` has drawn them: `init_weights` draws them as `own` was told.

Ours: rates from 1 to 8 become 1 for every feature, in each model that `create_model` makes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "initialization"


class Rates(Layer):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.own("rate_D", (d_model,), constant(1.0))
        with torch.no_grad():
            self.rate_D.copy_(torch.linspace(1, 8, d_model))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.rate_D * x_BTD


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.rates = Rates(config.d_model)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = super().features(idx_BT, state)
        return self.rates(x_BTD), after
