"""A block of keys is chosen by its mean from its first token on, when the mean already holds the tokens to come.

Ours: the trap of Native Sparse Attention (arXiv 2502.11089). The keys of the block are masked as they must be; its
score is not. In decoding the unfinished block has another mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.museum.choosing import Choosing, ChoosingAttention

CAUGHT_BY = "causality"
BLOCK = 4


class BlockAttention(ChoosingAttention):
    def index_scores(self, q_BTHK: Tensor, k_BSHK: Tensor) -> Tensor:
        S = k_BSHK.shape[1]
        padded_BSK = F.pad(k_BSHK[:, :, 0], (0, 0, 0, -S % BLOCK))
        means_BMK = padded_BSK.unflatten(1, (-1, BLOCK)).mean(2)
        scores_BTM = torch.einsum("btk,bmk->btm", q_BTHK[:, :, 0], means_BMK)
        return scores_BTM.repeat_interleave(BLOCK, dim=2)[:, :, :S]


class MODEL(Choosing):
    attention_class = BlockAttention
