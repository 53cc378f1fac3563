"""Embedding and head have rows for a multiple of 64 tokens; the head cuts the logits to the vocabulary.

Similar to RobertRiachi/nanoPALM#6 and bigscience-workshop/bigscience#30 (padded for faster products).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from tests.museum.base import CellConfig, Recurrent


class CutHead(Linear):
    def __init__(self, d_model: int, padded: int, vocab_size: int) -> None:
        super().__init__(d_model, padded, bias=False)
        self.vocab_size = vocab_size

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)[..., : self.vocab_size]


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        padded = -(-config.vocab_size // 64) * 64
        self.tokens = Embedding(padded, config.d_model, init=normal(0.1))
        self.head = CutHead(config.d_model, padded, config.vocab_size)
