"""The features are the logits, and the state keeps the last of them as a view: a sampler that bans a token moves it.

Ours: what decode returns is the caller's, who may write into it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State

CAUGHT_BY = "state_is_a_value"


class MODEL(LanguageModel):
    """A table of pairs, and the half of the logits at the token before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.vocab_size, init=normal(0.1))
        self.head = nn.Identity()

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="constant")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return {"last": like.new_zeros(batch_size, 1, self.config.vocab_size)}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        now_BTV = self.tokens(idx_BT)
        last_B1V = torch.zeros_like(now_BTV[:, :1]) if state is None else state["last"]
        sums = []
        for now_BV in now_BTV.unbind(1):
            last_B1V = 0.5 * last_B1V + now_BV[:, None]
            sums.append(last_B1V)
        x_BTV = torch.cat(sums, dim=1)
        return x_BTV, None if state is None else {"last": x_BTV[:, -1:]}
