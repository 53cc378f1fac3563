"""The head shares its weight with the token embedding and has a bias of its own.

Similar to vllm-project/vllm#46835 (the bias of a tied head, which was left out).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.head import TiedHead
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding
from tests.museum.base import CellConfig, Recurrent


class BiasedHead(TiedHead):
    is_linear = True  # the logits are F.linear(x, self.weight, self.bias) and nothing else

    def __init__(self, embedding: Embedding) -> None:
        super().__init__(embedding)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model, init=normal(0.02))
        self.head = BiasedHead(self.tokens)
