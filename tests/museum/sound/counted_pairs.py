"""A table of counted pairs, each increased by one: there are no parameters, and `fit` counts.

Ours: the smallest model that declares trainable=False. The rule is Laplace's, see Jurafsky and Martin, "Speech and
Language Processing", chapter 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


class MODEL(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.counts_VV: Tensor
        self.register_buffer("counts_VV", torch.zeros(config.vocab_size, config.vocab_size, dtype=torch.int64))
        self.head = nn.Identity()

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1, state_growth="none", trainable=False)

    def fit(self, tokens_BT: Tensor) -> None:
        V = self.config.vocab_size
        pairs_BT = tokens_BT[:, :-1] * V + tokens_BT[:, 1:]
        pairs_N = pairs_BT[(tokens_BT[:, :-1] >= 0) & (tokens_BT[:, 1:] >= 0)]  # without padding
        self.counts_VV.copy_(pairs_N.bincount(minlength=V * V).view(V, V))

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return ()

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return (1.0 + self.counts_VV[idx_BT]).log_softmax(-1), state
