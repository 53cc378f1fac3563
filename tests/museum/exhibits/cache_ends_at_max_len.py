"""The cache has room for `max_len` entries and drops the oldest when there are more.

Similar to neuralmagic/deepsparse#1447 and clankur/einygpt#2 (a cache that is full).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.museum.sound.static_cache import MODEL as Static
from tests.museum.sound.static_cache import StaticAttention

CAUGHT_BY = "max_len"


class FullAttention(StaticAttention):
    def remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
        room = cache["kv"][0].shape[1]
        k, v, after = super().remember(cache, k, v)
        length, kept = after["length"], min(after["length"], room)
        return k, v, {"length": kept, "kv": [x[:, length - kept : length - kept + room] for x in after["kv"]]}


class MODEL(Static):
    attention_class = FullAttention
