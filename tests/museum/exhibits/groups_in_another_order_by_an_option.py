"""An option with a name of its own shares keys between heads; a step repeats them in another order than a longer call.

Ours: as `groups_in_another_order`, but by default each head has its own keys, so that decoding is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmzoo.configs import require_divides
from tests.museum.exhibits.groups_in_another_order import TilingAttention
from tests.museum.grouped import Grouped, GroupedConfig

CAUGHT_BY = "other_models"


@dataclass(frozen=True, kw_only=True)
class SharingConfig(GroupedConfig):
    heads_per_key: int = 1

    def __post_init__(self) -> None:
        require_divides(self, "heads_per_key", "n_heads")
        object.__setattr__(self, "n_kv_heads", self.n_heads // self.heads_per_key)
        super().__post_init__()


class MODEL(Grouped):
    config_class = SharingConfig
    attention_class = TilingAttention
