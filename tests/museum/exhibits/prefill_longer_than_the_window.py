"""A prefill longer than the window attends only to the keys that remain in the buffer after it.

Lightning-AI/litgpt#2182.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"


class RingAttention(Attention):
    def mask(self, T: int, S: int) -> Tensor:
        return super().mask(T, S) if S >= T else torch.ones(T, S, dtype=torch.bool).tril()

    def remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Any]:
        after = [old.append(new) for old, new in zip(cache, (k, v), strict=True)]
        return after[0].entries(), after[1].entries(), after


class MODEL(Transformer):
    attention_class = RingAttention
