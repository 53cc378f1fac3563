"""Masked scores are set to the least float32, not to minus infinity, and a row may see nothing but itself.

Similar to huggingface/transformers#17937 (masks of `torch.finfo(dtype).min`): no score that a model can have is lower.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer


class LeastAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        scores_BHTS = scores_BHTS.masked_fill(~allowed_TS, torch.finfo(scores_BHTS.dtype).min)
        return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))


class MODEL(Transformer):
    attention_class = LeastAttention
