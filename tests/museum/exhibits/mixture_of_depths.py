"""Half of the tokens skip the block: those whose router score is below the sequence's median, later tokens included.

Ours: mixture-of-depths as published (Raposo et al. 2024, arXiv 2404.02258), whose choice is not causal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from tests.museum.base import Attention, Block, MuseumConfig, Transformer

CAUGHT_BY = "causality"


class SkippingBlock(Block):
    def __init__(self, config: MuseumConfig, attention: nn.Module) -> None:
        super().__init__(config, attention)
        self.router = Linear(config.d_model, 1, bias=False)

    def forward(self, x_BTD: Tensor, cache: object, position: int) -> tuple[Tensor, object]:
        y_BTD, cache = super().forward(x_BTD, cache, position)
        score_BT1 = self.router(x_BTD)
        middle_B11 = score_BT1.median(dim=1, keepdim=True).values
        return torch.where(score_BT1 >= middle_B11, x_BTD + score_BT1 * (y_BTD - x_BTD), x_BTD), cache


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(SkippingBlock(config, Attention(config, i)) for i in range(config.n_layers))
