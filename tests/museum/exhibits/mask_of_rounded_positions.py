"""The mask compares positions in the dtype of the features; beyond 256 bfloat16 rounds them, so some see later tokens.

Ours: `torch.arange(S, dtype=x.dtype)`, which is exact in float32 and in short texts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_precision"


class RoundedAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        T, S = allowed_TS.shape
        if torch.is_autocast_enabled("cpu"):
            at_S = torch.arange(S, dtype=torch.bfloat16)
            allowed_TS = at_S[S - T :, None] >= at_S
        return super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)


class MODEL(Transformer):
    attention_class = RoundedAttention
