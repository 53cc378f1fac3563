"""Remembers for each token what followed it last, in the order of the rows: a table that later texts overwrite.

Ours: rows are read separately, but which of them comes last is allowed to matter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


class MODEL(LanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.next_V: Tensor
        self.register_buffer("next_V", torch.full((config.vocab_size,), -1))
        self.head = nn.Identity()

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1, state_growth="none", trainable=False)

    def fit(self, tokens_BT: Tensor) -> None:
        self.next_V.fill_(-1)
        for row_T in tokens_BT:
            row_T = row_T[row_T >= 0]
            for token, following in zip(row_T[:-1].tolist(), row_T[1:].tolist(), strict=True):
                self.next_V[token] = following

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return ()

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        V = self.config.vocab_size
        known_BTV = nn.functional.one_hot(self.next_V[idx_BT] + 1, V + 1)[..., 1:]
        return (1.0 + 9.0 * V * known_BTV).log_softmax(-1), state
