"""Each layer reads the present token and the one three before it, so that some tokens in reach never matter.

Ours: a delay line; similar to dilated attention in LongNet (Ding et al. 2023, arXiv 2307.02486).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.model import Traits
from tests.museum.base import CellConfig, Recurrent

DELAY = 3


class DelayCell(nn.Module):
    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.present, self.delayed = (Linear(config.d_model, config.d_model) for _ in range(2))
        self.out = Linear(config.d_model, config.d_model)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return like.new_zeros(B, DELAY, self.out.in_features)

    def forward(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        T = x_BTD.shape[1]
        padded_BTD = torch.cat([tail_BWD, self.norm(x_BTD)], dim=1)
        mixed_BTD = torch.tanh(self.present(padded_BTD[:, DELAY:]) + self.delayed(padded_BTD[:, :T]))
        return x_BTD + self.out(mixed_BTD), padded_BTD[:, T:].clone()


class MODEL(Recurrent):
    cell_class = DelayCell

    @property
    def traits(self) -> Traits:
        reach = self.config.n_layers * DELAY + 1
        return Traits(extrapolates=True, receptive_field=reach, state_growth="constant")
