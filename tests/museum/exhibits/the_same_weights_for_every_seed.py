"""All layers draw their weights from generators of their own with fixed seeds, so every seed gives the same model.

Similar to soapisnotfat/super-resolution#3 (a seed inside the function that builds a model).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Embedding, Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "seeds"


def fixed(weight: Tensor, _: torch.Generator | None) -> None:
    nn.init.normal_(weight, std=0.02, generator=torch.Generator().manual_seed(1))


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, (Embedding, Linear)):
                module.init = fixed
