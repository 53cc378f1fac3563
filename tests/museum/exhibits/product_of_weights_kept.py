"""In eval mode the output projection and a low-rank map are merged once, and the product is kept when weights change.

Ours: each check begins with a new model, so a product that is kept too long was never out of date.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.linear import Linear
from tests.museum.base import Attention, MuseumConfig, Transformer

CAUGHT_BY = "changed_weights"


class MergingAttention(Attention):
    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.down, self.up = (
            Linear(config.d_model, 4, bias=False),
            Linear(4, config.d_model, bias=False),
        )
        self.merged: Tensor | None = None

    def merge(self, y_BHTK: Tensor) -> Tensor:
        y_BTD = super().merge(y_BHTK)
        if self.training:
            return y_BTD + self.up(self.down(y_BTD))
        if self.merged is None:
            self.merged = (self.up.weight @ self.down.weight).detach()
        return y_BTD + F.linear(y_BTD, self.merged.to(y_BTD.dtype))


class MODEL(Transformer):
    attention_class = MergingAttention
