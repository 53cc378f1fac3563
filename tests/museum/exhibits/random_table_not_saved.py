"""A random projection is drawn in the constructor and not saved, so the loaded model has a different one.

Similar to macwiatrak/Bacformer#33 (tables that no checkpoint restores).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "save_and_load"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale_D", torch.rand(config.d_model), persistent=False)

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        return super().embed(idx_BT, position, state) * self.scale_D
