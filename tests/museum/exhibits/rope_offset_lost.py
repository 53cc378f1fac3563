"""Decoding rotates every token as if it were at position 0.

Blaizzy/mlx-vlm#1983, RobertCsordas/moeut#6.
"""

from __future__ import annotations

from typing import Any

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"


class RestartingAttention(Attention):
    def positions(self, position: int, T: int, cache: Any) -> int:
        return 0


class MODEL(Transformer):
    attention_class = RestartingAttention
