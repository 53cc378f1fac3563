"""A table is computed in the constructor and not saved: after building on the meta device, its values are arbitrary.

huggingface/transformers#45902, pytorch/torchtitan#4783, Synthyra/FastPLMs#47.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "meta_device"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale_D", torch.linspace(1, 2, config.d_model), persistent=False)

    def embed(self, idx_BT: Tensor, position: int, state: State) -> Tensor:
        return super().embed(idx_BT, position, state) * self.scale_D
