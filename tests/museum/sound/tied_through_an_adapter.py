"""The head multiplies by the token embedding after a low-rank map of its own, and has no attribute `weight`.

Ours: whether a head is tied shows in what it computes, and not in its attributes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from tests.museum.base import MuseumConfig, Transformer


class AdaptedHead(nn.Module):
    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        D = embedding.embedding_dim
        self.embedding, self.down, self.up = embedding, Linear(D, 4, bias=False), Linear(4, D, bias=False)

    def flops(self, T: int) -> float:
        return 2.0 * self.embedding.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x + self.up(self.down(x)), self.embedding.weight)


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model, init=normal(0.02))
        self.head = AdaptedHead(self.tokens) if config.tie_embeddings else Linear(config.d_model, config.vocab_size)
