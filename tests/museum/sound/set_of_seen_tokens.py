"""The state is a row of booleans: which tokens have occurred. A token matters when it is the only one of its kind.

Ours: a bag of words as the memory of a language model, similar to coverage in summarization (See et al. 2017, arXiv
1704.04368).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.head import make_head
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class SetConfig(ModelConfig):
    d_model: int = 16


class MODEL(LanguageModel):
    config_class = SetConfig
    config: SetConfig

    def __init__(self, config: SetConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.seen = Linear(config.vocab_size, config.d_model)
        self.mix = Linear(config.d_model, config.d_model)
        self.head = make_head(self.tokens, tied=False)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="constant")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return torch.zeros(batch_size, self.config.vocab_size, dtype=torch.bool, device=like.device)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.tokens(idx_BT)
        before_BV = self.init_layers(len(idx_BT), 0, x_BTD) if state is None else state
        new_BTV = F.one_hot(idx_BT, self.config.vocab_size)
        seen_BTV = (new_BTV.cumsum(1) > 0) | before_BV[:, None]
        y_BTD = x_BTD + self.seen(seen_BTV.to(x_BTD.dtype))
        return torch.tanh(self.mix(y_BTD)), None if state is None else seen_BTV[:, -1].clone()
