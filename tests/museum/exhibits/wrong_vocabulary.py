"""The head is padded to a round number, and the padding comes out: logits for tokens that do not exist.

A near relative of huggingface/transformers#45079 (a resized head).
"""

from __future__ import annotations

from lmzoo.layers.linear import Linear

from ..base import MuseumConfig, Transformer

CAUGHT_BY = "shapes"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size + 3, bias=False)
