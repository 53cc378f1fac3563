"""The initial state is empty and grows in decoding, so `state_bytes` returns too little.

KolosalAI/model-memory-calculator#2, rasbt/LLMs-from-scratch#922 (estimates off by several times).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "state_bytes"


class GrowingAttention(Attention):
    def init_state(self, B: int, max_len: int, like: Tensor) -> Any:
        return super().init_state(B, 1, like)


class MODEL(Transformer):
    attention_class = GrowingAttention
