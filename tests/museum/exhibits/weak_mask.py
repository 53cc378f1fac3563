"""Masked scores are set to a tiny negative number instead of minus infinity, so nothing is masked.

Shujun-He/RibonanzaNet#5 and awslabs/gluonts#1401 (-1e-9 for -1e9), hyunwoongko/transformer#10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class WeakAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        scores_BHTS = scores_BHTS.masked_fill(~allowed_TS, -1e-9)
        return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))


class MODEL(Transformer):
    attention_class = WeakAttention
