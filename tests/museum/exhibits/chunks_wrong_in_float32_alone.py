"""A fused kernel for float32 aligns its mask at the first key: a chunk after other tokens sees only those before.

Ours: in float64, in which most is checked, a reference runs that is right.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"


class FusedAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        if q_BTHK.dtype == torch.float64 or q_BTHK.shape[1] == 1 or self.config.window is not None:
            return super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)
        q_BHTK, k_BHSK, v_BHSK = (x.transpose(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
        return self.merge(F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, is_causal=True))


class MODEL(Transformer):
    attention_class = FusedAttention
