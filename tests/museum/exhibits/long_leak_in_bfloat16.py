"""For more than 256 tokens in bfloat16 the mask is made of blocks of 64, so a token sees later ones of its block.

Ours: `mask_by_blocks_of_64` in a kernel of its own, which short texts and float32 do not use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_precision"


class BlockAttention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        T, S = allowed_TS.shape
        if T > 256 and torch.is_autocast_enabled("cpu"):
            allowed_TS = torch.arange(S - T, S)[:, None] // 64 >= torch.arange(S) // 64
        return super().attend(q_BTHK, k_BSHK, v_BSHK, allowed_TS)


class MODEL(Transformer):
    attention_class = BlockAttention
