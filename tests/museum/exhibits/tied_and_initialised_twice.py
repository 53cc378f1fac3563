"""A tied matrix is initialized by the embedding and again by the head, with another standard deviation.

fastai/fastai#2090, Modalities/modalities#456.
"""

from __future__ import annotations

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "initialization"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size, bias=False, init=normal(0.1))
        self.head.weight = self.tokens.weight
