"""A trigram model without a state: an embedding of the present token, and one of the token before by shifted ids.

Ours: the example of the contract, which has no layers and decodes by reading all tokens again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.linear import Embedding
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


class MODEL(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.last = Embedding(config.vocab_size, 32)
        self.before = Embedding(config.vocab_size + 1, 32)  # the last row is padding before the first token
        self.head = nn.Linear(32, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=2)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        before_BT = F.pad(idx_BT, (1, 0), value=self.config.vocab_size)[:, :-1]
        return torch.tanh(self.last(idx_BT) + self.before(before_BT)), state
