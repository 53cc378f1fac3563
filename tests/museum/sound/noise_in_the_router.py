"""In training, noise is added to the logits of a router, so that a token sometimes tries another expert.

Noisy gating (Shazeer et al. 2017, arXiv 1701.06538, section 2.1), here over dense experts.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


class NoisyCell(Cell):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.router = Linear(config.d_model, 3)
        self.experts = Linear(config.d_model, 3 * config.d_model)

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        x_BTD, state = super().forward(x_BTD, state)
        logits_BTE = self.router(x_BTD)
        if self.training:
            logits_BTE = logits_BTE + torch.randn_like(logits_BTE)
        y_BTED = torch.tanh(self.experts(x_BTD)).unflatten(-1, (3, -1))
        return x_BTD + (logits_BTE.softmax(-1)[..., None] * y_BTED).sum(2), state


class MODEL(Recurrent):
    cell_class = NoisyCell

    @property
    def traits(self) -> Traits:
        return replace(super().traits, random_in_training=True)
