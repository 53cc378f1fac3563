"""Copies what followed the last occurrence of the present token, so the content decides which tokens matter.

Induction heads (Olsson et al. 2022, arXiv 2209.11895) and the cache of Grave et al. 2016 (arXiv 1612.04426).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmzoo.layers.head import make_head
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State, TimeBuffer


@dataclass(frozen=True, kw_only=True)
class LookupConfig(ModelConfig):
    d_model: int = 16


class MODEL(LanguageModel):
    """The features are a map of the present token and of the token that followed its last occurrence."""

    config_class = LookupConfig
    config: LookupConfig

    def __init__(self, config: LookupConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.followers = Embedding(config.vocab_size + 1, config.d_model)  # the last row: no earlier occurrence
        self.mix = Linear(2 * config.d_model, config.d_model)
        self.head = make_head(self.tokens, tied=False)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="linear")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return TimeBuffer.empty(batch_size, max_len, device=like.device, dtype=torch.long)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        after = None if state is None else state.append(idx_BT)
        past_BS = idx_BT if after is None else after.entries()
        T, S = idx_BT.shape[1], past_BS.shape[1]
        place_S = torch.arange(S, device=idx_BT.device)
        earlier_TS = place_S < place_S[S - T :, None]
        same_BTS = (idx_BT[:, :, None] == past_BS[:, None]) & earlier_TS
        found_BT = torch.where(same_BTS, place_S, -1).amax(-1)
        follower_BT = past_BS.gather(1, (found_BT + 1).clamp(min=0))
        follower_BT = torch.where(found_BT >= 0, follower_BT, self.config.vocab_size)
        both_BTE = torch.cat([self.tokens(idx_BT), self.followers(follower_BT)], dim=-1)
        return torch.tanh(self.mix(both_BTE)), after
