"""No positions: attention subtracts the distance, times a slope per head, from its scores.

ALiBi (Press et al. 2021, arXiv 2108.12409).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.museum.base import Attention, Transformer


class AlibiAttention(Attention):
    rotary = False

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        T, S, H = q_BTHK.shape[1], k_BSHK.shape[1], q_BTHK.shape[2]
        place_S = torch.arange(S, device=q_BTHK.device)
        distance_TS = place_S[S - T :, None] - place_S
        slopes_H = 2.0 ** (-8 * torch.arange(1, H + 1, device=q_BTHK.device) / H)
        bias_HTS = (-slopes_H[:, None, None] * distance_TS).masked_fill(~allowed_TS, -torch.inf).to(q_BTHK.dtype)
        q_BHTK, k_BHSK, v_BHSK = (x.transpose(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
        return self.merge(F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=bias_HTS))


class MODEL(Transformer):
    attention_class = AlibiAttention
