"""The head gets the data of the embedding's weight and not the parameter: two parameters in one memory.

Ours: an optimizer changes the memory twice, with two gradients, and a copy or a saved model is not tied at all.
"""

from __future__ import annotations

from lmzoo.layers.linear import Linear
from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "tied_weights"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size, bias=False)
        self.head.weight.data = self.tokens.weight.data  # type: ignore[union-attr]
