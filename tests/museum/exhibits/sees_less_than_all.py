"""Declares no end of its receptive field, but each of its layers sees 40 tokens only.

Similar to rasbt/LLMs-from-scratch#879 and apple/axlearn#1009 (what a window means for what a model sees).
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_gradients"


class ShortAttention(Attention):
    width = 40

    def mask(self, T: int, S: int) -> Tensor:
        return super().mask(T, S).triu(S - T - self.width + 1)


class MODEL(Transformer):
    attention_class = ShortAttention
