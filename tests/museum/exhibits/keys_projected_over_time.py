"""Keys and values are mixed along time before a triangular mask is put over them.

tatp22/linformer-pytorch#16: the mask is over what is left of time after the projection, and hides nothing.
"""

from __future__ import annotations

from torch import Tensor

from ..base import Attention, Transformer

CAUGHT_BY = "causality"


class ProjectingAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        return super().attend(q_BTHK, k_BSHK.cumsum(1).flip(1), v_BSHK.flip(1).cumsum(1).flip(1), allowed_TS)


class MODEL(Transformer):
    attention_class = ProjectingAttention
