"""Scores are limited by a soft cap, and the attention weights that the layer offers are made of scores without it.

Ours: maps of attention were drawn by code of its own, which a later change of the attention has left behind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.museum.offering import Offering, OfferingAttention

CAUGHT_BY = "offers"


class CappedAttention(OfferingAttention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / math.sqrt(q_BTHK.shape[-1])
        weights_BHTS = torch.tanh(scores_BHTS).masked_fill(~allowed_TS, -math.inf).softmax(dim=-1)
        return self.merge(weights_BHTS @ v_BSHK.transpose(1, 2))


class MODEL(Offering):
    attention_class = CappedAttention
