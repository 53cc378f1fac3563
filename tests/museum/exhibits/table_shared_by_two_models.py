"""Rotary tables are cached for the process by their length and width, without the base of the angles.

ml-explore/mlx#561 (a key of the cache that is not the one of its values), NVIDIA/TensorRT-LLM#3378.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.grouped import Grouped, GroupedAttention

CAUGHT_BY = "other_models"


_tables: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}


class CachingAttention(GroupedAttention):
    def table(self, position: int, T: int, width: int) -> tuple[Tensor, Tensor]:
        key = (position, T, width)
        if key not in _tables:
            _tables[key] = super().table(position, T, width)
        return _tables[key]


class MODEL(Grouped):
    attention_class = CachingAttention
