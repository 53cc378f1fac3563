"""Layers in a plain Python list are neither trained, nor moved to a device, nor saved.

pytorch/pytorch#715, #666 and #1053.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "parameters"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.extra = [Linear(config.d_model, config.d_model) for _ in range(2)]

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        for layer in self.extra:
            x_BTD = x_BTD + layer.to(x_BTD.dtype)(x_BTD)
        return x_BTD, state
