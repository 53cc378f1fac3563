"""The head mixes the positions of a chunk, so the loss depends on the chunk length.

Similar to fla-org/flash-linear-attention#539 (a fused linear cross-entropy and its means).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "chunked_loss"


class CentringHead(Linear):
    def forward(self, input: Tensor) -> Tensor:
        logits = super().forward(input)
        return logits - logits.amax() * torch.linspace(0, 1, logits.shape[-1], dtype=logits.dtype)


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = CentringHead(config.d_model, config.vocab_size, bias=False)
