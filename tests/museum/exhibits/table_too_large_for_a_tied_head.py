"""Embeddings of variance one, whose size a norm hides: as a tied head they give logits far from zero.

Ours: torch's default for nn.Embedding, with a setting that is off by default.
"""

from __future__ import annotations

from lmzoo.layers.head import make_head
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "initial_loss"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model, init=normal(1.0))
        self.head = make_head(self.tokens, tied=config.tie_embeddings)
