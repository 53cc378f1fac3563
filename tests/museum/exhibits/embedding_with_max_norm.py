"""The embedding has a max_norm, so that each lookup shortens its long rows in place: a forward pass changes weights.

Ours: gradients and optimizer do not know of it, and the head, if tied, changes while the model is only read.
"""

from __future__ import annotations

from torch import nn

from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "global_state"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.d_model, max_norm=1.0)
        nn.init.normal_(self.tokens.weight, std=0.02)
