"""With tie_embeddings=True, which is not the default, the head gets the embedding's parameter under a second name.

Ours: to_empty(), which fills a model from the meta device as FSDP does, gives each name a memory of its own.
"""

from __future__ import annotations

from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "tied_weights"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        if config.tie_embeddings:
            self.head = Linear(config.d_model, config.vocab_size, bias=False)
            self.head.weight = self.tokens.weight
