"""Masked scores are set to -10000, which is no mask any more where the visible scores are below it.

Ours: a trained model has larger scores than a fresh one; the same number, added, was the mask of BERT and of GPT-2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "causality"


class OutweighedAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        scores_BHTS = scores_BHTS.masked_fill(~allowed_TS, -1e4)
        return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))


class MODEL(Transformer):
    attention_class = OutweighedAttention
