"""Keys and values of tokens more than 128 back are detached, in train mode only: they are read, and never learned.

Ours: a memory of earlier segments without gradients, as in Transformer-XL, within one sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_gradients"
LEARNED = 128


class TruncatedAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        if self.training:
            k_BSHK, v_BSHK = (torch.cat([x[:, :-LEARNED].detach(), x[:, -LEARNED:]], dim=1) for x in (k_BSHK, v_BSHK))
        return super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)


class MODEL(Transformer):
    attention_class = TruncatedAttention
