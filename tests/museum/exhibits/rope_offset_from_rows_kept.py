"""With a window, the position is taken from the number of entries in the cache, which stops growing.

rajveer43/VeloxQuant-MLX#389.
"""

from __future__ import annotations

from typing import Any

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"


class EvictingAttention(Attention):
    def positions(self, position: int, T: int, cache: Any) -> int:
        return 0 if cache is None else cache[0].entries().shape[1]


class MODEL(Transformer):
    attention_class = EvictingAttention
