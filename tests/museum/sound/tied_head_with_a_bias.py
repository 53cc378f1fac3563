"""The head shares its weight with the token embedding and has a bias of its own.

Similar to vllm-project/vllm#46835 (the bias of a tied head, which was left out).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.head import TiedHead
from lmzoo.layers.linear import Embedding
from tests.museum.base import MuseumConfig, Transformer


@dataclass(frozen=True, kw_only=True)
class TiedConfig(MuseumConfig):
    tie_embeddings: bool = True


class BiasedHead(TiedHead):
    is_linear = True  # the logits are F.linear(x, self.weight, self.bias) and nothing else

    def __init__(self, embedding: Embedding) -> None:
        super().__init__(embedding)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class MODEL(Transformer):
    config_class = TiedConfig

    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        if config.tie_embeddings:
            self.head = BiasedHead(self.tokens)
