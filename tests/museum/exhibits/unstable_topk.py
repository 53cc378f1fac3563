"""A token attends to the 4 keys with the highest scores, found by torch.topk, which breaks ties by the number of keys.

Ours: the smallest form of a lightning indexer (DeepSeek-V3.2). ReLU makes many scores equal to zero, so decoding
chooses other keys than the forward pass does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "decoding"
KEPT = 4


class SparseAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        index_BTS = torch.relu(torch.einsum("btk,bsk->bts", q_BTHK[:, :, 0], k_BSHK[:, :, 0]) - 1.0)
        index_BTS = index_BTS.masked_fill(~allowed_TS, -torch.inf)
        chosen_BTK = index_BTS.topk(min(KEPT, index_BTS.shape[-1])).indices
        kept_BTS = torch.zeros_like(index_BTS, dtype=torch.bool).scatter(2, chosen_BTK, True) & allowed_TS
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
        scores_BHTS = scores_BHTS.masked_fill(~kept_BTS[:, None], -torch.inf)
        return self.merge(torch.einsum("bhts,bshk->bhtk", scores_BHTS.softmax(-1), v_BSHK))


class MODEL(Transformer):
    attention_class = SparseAttention
