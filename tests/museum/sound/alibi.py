"""No positions: attention subtracts the distance, times a slope per head, from its scores.

ALiBi (Press et al. 2021, arXiv 2108.12409).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer


class AlibiAttention(Attention):
    rotary = False

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        T, S, H = q_BTHK.shape[1], k_BSHK.shape[1], q_BTHK.shape[2]
        distance_TS = torch.arange(S - T, S)[:, None] - torch.arange(S)
        slopes_H = 2.0 ** (-8 * torch.arange(1, H + 1) / H)
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        scores_BHTS = scores_BHTS - (slopes_H[:, None, None] * distance_TS).to(scores_BHTS.dtype)
        weights_BHTS = scores_BHTS.masked_fill(~allowed_TS, -torch.inf).softmax(-1)
        return self.merge(torch.einsum("bhts,bshk->bhtk", weights_BHTS, v_BSHK))


class MODEL(Transformer):
    attention_class = AlibiAttention
