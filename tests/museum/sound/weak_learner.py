"""A bigram model of rank 1: it cannot fit even one batch, because a single number is all that a token becomes.

Ours: an honest but weak baseline, a factorized form of the bigram table.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.layers.linear import Embedding, Linear
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


class MODEL(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, 1)
        self.head = Linear(1, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1, state_growth="none")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return ()

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.tokens(idx_BT), state
