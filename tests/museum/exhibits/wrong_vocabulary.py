"""The head is padded to a round number and the padding is not removed: there are logits for tokens that do not exist.

Blaizzy/mlx-vlm#1917, tenstorrent/tt-metal#38881.
"""

from __future__ import annotations

from lmzoo.layers.linear import Linear
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "shapes"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.d_model, config.vocab_size + 3, bias=False)
