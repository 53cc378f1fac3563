"""Scores are twelve times as large as usual, so that attention is nearly a choice, in bfloat16 not always the same one.

Ours: right in float32 and float64 at any length; errors in bfloat16 do not grow along the text.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Attention, Transformer


class SharpAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        return super().attend(12.0 * q_BTHK, k_BSHK, v_BSHK, allowed_TS)


class MODEL(Transformer):
    attention_class = SharpAttention
