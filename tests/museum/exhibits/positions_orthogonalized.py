"""Learned positions are a bare parameter (1, T, D), which counts as a matrix: decayed, and orthogonalized by Muon.

Similar to karpathy/minGPT#24, karpathy/minGPT#23 (weight decay on position embeddings that are bare parameters).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import MuseumConfig, PositionlessAttention, Transformer

CAUGHT_BY = "roles"


class MODEL(Transformer):
    attention_class = PositionlessAttention

    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.positions_1TD = nn.Parameter(torch.empty(1, config.context_length, config.d_model))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.positions_1TD, std=0.02, generator=generator)

    @property
    def traits(self) -> Traits:
        window = self.config.window
        reach = None if window is None else self.config.n_layers * (window - 1) + 1
        return Traits(receptive_field=reach, state_growth="linear" if window is None else "constant")

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        return self.tokens(idx_BT) + self.positions_1TD[:, position : position + idx_BT.shape[1]]
