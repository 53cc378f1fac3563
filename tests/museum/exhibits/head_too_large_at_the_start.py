"""The head is initialized from N(0, 1), so the initial loss is many times ln V.

huggingface/transformers#26441 (the head of T5, an initial loss of about 110).
"""

from __future__ import annotations

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "initial_loss"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size, bias=False, init=normal(1.0))
