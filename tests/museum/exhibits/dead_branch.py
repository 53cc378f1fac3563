"""A constant gate of zero: the layer behind it always gets a gradient of zero.

Similar to pytorch/pytorch#59925 (layers that are silently not trained).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.museum.base import Attention, Block, MuseumConfig, Transformer

CAUGHT_BY = "gradients"


class GatedBlock(Block):
    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        y_BTD, cache = super().forward(x_BTD, cache, position)
        return x_BTD + 0.0 * y_BTD, cache


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.blocks[-1] = GatedBlock(config, Attention(config, 1))
