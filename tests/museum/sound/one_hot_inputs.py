"""Tokens enter as one-hot rows that a linear map reads: there is no embedding.

Ours: the oldest form of a neural language model's input, as in makemore; FLOPs of the product are counted.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Linear
from tests.museum.base import CellConfig, Recurrent


class OneHot(nn.Module):
    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.map = Linear(config.vocab_size, config.d_model, bias=False, init=normal(0.1))

    def forward(self, idx_BT: Tensor) -> Tensor:
        return self.map(F.one_hot(idx_BT, self.map.weight.shape[1]).to(self.map.weight.dtype))


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.tokens = OneHot(config)
