"""Keys and values are mixed along time before the causal mask is applied.

tatp22/linformer-pytorch#16: the mask applies to the projected time axis, and hides no future token.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class ProjectingAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        return super().attend(q_BTHK, k_BSHK.cumsum(1).flip(1), v_BSHK.flip(1).cumsum(1).flip(1), allowed_TS)


class MODEL(Transformer):
    attention_class = ProjectingAttention
