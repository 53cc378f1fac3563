"""Attends to the keys with the most signs in common with the query: whole numbers, so most choices are between ties.

Hashes of one bit per feature, as in HashAttention (Desai et al. 2024, arXiv 2412.14468).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.choosing import Choosing, ChoosingAttention


class HashedAttention(ChoosingAttention):
    def index_scores(self, q_BTHK: Tensor, k_BSHK: Tensor) -> Tensor:
        return torch.einsum("btk,bsk->bts", q_BTHK[:, :, 0].sign(), k_BSHK[:, :, 0].sign())


class MODEL(Choosing):
    attention_class = HashedAttention
