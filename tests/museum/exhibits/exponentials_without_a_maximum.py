"""Attention divides exponentials of the scores by their sum, without subtracting the largest score first.

pytorch/executorch#18407, ggml-org/llama.cpp#2665, mila-iqia/blocks#727.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "large_weights"


class OverflowingAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        weights_BHTS = scores_BHTS.exp() * allowed_TS
        weights_BHTS = weights_BHTS / weights_BHTS.sum(-1, keepdim=True)
        return self.merge(torch.einsum("bhts,bshk->bhtk", weights_BHTS.to(v_BSHK.dtype), v_BSHK))


class MODEL(Transformer):
    attention_class = OverflowingAttention
