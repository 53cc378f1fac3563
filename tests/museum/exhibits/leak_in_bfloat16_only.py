"""Code that runs only in bfloat16 adds a fiftieth of the mean of all values to the result.

Ours: under autocast, training on a CPU uses kernels that float32 and float64 never use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "bfloat16_causality"


class LeakingAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        y_BTD = super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)
        if v_BSHK.dtype != torch.bfloat16:
            return y_BTD
        return y_BTD + 0.02 * v_BSHK.mean(1, keepdim=True).flatten(2)


class MODEL(Transformer):
    attention_class = LeakingAttention
