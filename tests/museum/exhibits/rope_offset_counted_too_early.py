"""The first layer advances the position before the later layers read it, so their rotation is too large.

fla-org/flash-linear-attention#766.
"""

from __future__ import annotations

from typing import Any

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"


class EarlyAttention(Attention):
    def positions(self, position: int, T: int, cache: Any) -> int:
        return position + T if self.layer > 0 and position > 0 else position


class MODEL(Transformer):
    attention_class = EarlyAttention
