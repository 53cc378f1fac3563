"""A depthwise `torch.nn.Conv1d`, padded on the left, with the last inputs as its state.

The short convolution of Mamba (Gu & Dao 2023, arXiv 2312.00752) as a module of torch, which declares nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.model import Traits
from tests.museum.base import CellConfig, Recurrent

WIDTH = 4


class ConvolutionCell(nn.Module):
    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.convolution = nn.Conv1d(config.d_model, config.d_model, WIDTH, groups=config.d_model)
        self.out = Linear(config.d_model, config.d_model)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return like.new_zeros(B, WIDTH - 1, self.convolution.in_channels)

    def forward(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        padded_BTD = torch.cat([tail_BWD, self.norm(x_BTD)], dim=1)
        y_BTD = self.convolution(padded_BTD.mT).mT
        return x_BTD + self.out(torch.tanh(y_BTD)), padded_BTD[:, x_BTD.shape[1] :].clone()


class MODEL(Recurrent):
    cell_class = ConvolutionCell

    @property
    def traits(self) -> Traits:
        reach = self.config.n_layers * (WIDTH - 1) + 1
        return Traits(extrapolates=True, receptive_field=reach, state_growth="constant")
