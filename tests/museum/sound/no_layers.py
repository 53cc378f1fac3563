"""A model without layers: the embedding of a token is its logits, the head is the identity, the state is empty.

Ours: the bigram model of the family, without a registered name.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmzoo.layers.linear import Embedding
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


class MODEL(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.table = Embedding(config.vocab_size, config.vocab_size)
        self.head = nn.Identity()

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1, state_growth="none")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return {"layers": [], "position": 0}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        after = None if state is None else {**state, "position": state["position"] + idx_BT.shape[1]}
        return self.table(idx_BT), after
