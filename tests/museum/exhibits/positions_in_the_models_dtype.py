"""Rotary angles are computed in the dtype of the features: in bfloat16, positions above 256 fall together.

EleutherAI/gpt-neox#1003, huggingface/transformers#29285, KellerJordan/modded-nanogpt#39.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.ops.rope import apply_rope
from tests.museum.base import Attention, Transformer

CAUGHT_BY = "long_precision"


class RoundingAttention(Attention):
    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.config.n_heads, D // self.config.n_heads).unbind(2)
        place_T = torch.arange(position, position + T).to(q.dtype)
        rate_K = 10000.0 ** -(torch.arange(0, q.shape[-1], 2) / q.shape[-1])
        angle_TK = place_T[:, None] * rate_K.to(q.dtype)
        q, k = (apply_rope(x, angle_TK.cos(), angle_TK.sin()) for x in (q, k))
        if cache is not None:
            k, v, cache = self.remember(cache, k, v)
        return self.out(self.attend(q, k, v, self.mask(T, k.shape[1]))), cache


class MODEL(Transformer):
    attention_class = RoundingAttention
