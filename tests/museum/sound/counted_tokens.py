"""Counted tokens, without any context: the logits are the same everywhere, so the receptive field is 0.

Ours: the baseline that every language model must beat.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


class MODEL(LanguageModel):
    log_p_V: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.register_buffer("log_p_V", torch.zeros(config.vocab_size).log_softmax(0))
        self.head = nn.Identity()

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=0, state_growth="none", trainable=False)

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return ()

    def fit(self, tokens_BT: Tensor) -> None:
        counts_V = tokens_BT[tokens_BT != IGNORE_INDEX].bincount(minlength=self.config.vocab_size)
        self.log_p_V.copy_((counts_V + 0.1).log().log_softmax(0))

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.log_p_V.expand(*idx_BT.shape, -1), state
