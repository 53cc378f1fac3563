"""Softmax attention with forget gates (Lin et al. 2025, arXiv 2503.02130).

Each head has a gate f_t in (0, 1) per token. Key s is seen from query t with the score

    q_t . k_s / sqrt(K) + log f_{s+1} + ... + log f_t

so a gate near zero hides all earlier tokens, and gates of one give plain attention. With the cumulative sum
c_t = log f_1 + ... + log f_t, the added term is c_t - c_s. It is never positive for s <= t; other pairs are masked
before the exponential.

Legend: B batch, T queries, S keys (the T newest among them), H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor


def naive_forgetting_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, decay_BSH: Tensor) -> Tensor:
    """The definition, one query after another; arguments and result as in `forgetting_attention`."""
    T, S, H, G = q_BTHK.shape[1], k_BSGK.shape[1], q_BTHK.shape[2], k_BSGK.shape[2]
    k_BSHK, v_BSHK = (repeat(x, "b s g k -> b s (g r) k", r=H // G) for x in (k_BSGK, v_BSGK))
    ys = []
    for t in range(T):
        now = S - T + t
        scores_BSH = torch.einsum("bhk,bshk->bsh", q_BTHK[:, t], k_BSHK[:, : now + 1]) / math.sqrt(q_BTHK.shape[-1])
        scores_BSH = scores_BSH + (decay_BSH[:, now, None] - decay_BSH[:, : now + 1]).to(scores_BSH.dtype)
        ys.append(torch.einsum("bsh,bshk->bhk", scores_BSH.softmax(dim=1), v_BSHK[:, : now + 1]))
    return torch.stack(ys, dim=1)


def forgetting_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, decay_BSH: Tensor) -> Tensor:
    """Attention with forget gates, by torch's fused kernel.

    Args:
        q_BTHK: the queries, at the positions of the last T keys.
        k_BSGK: the keys; query head h reads key/value head h // (H / G).
        v_BSGK: the values.
        decay_BSH: the cumulative sums of the log gates up to and with each key, float32 or wider.

    Returns:
        `y_BTHK`. Memory is B H T S numbers for the added terms.
    """
    T, S = q_BTHK.shape[1], k_BSGK.shape[1]
    decay_BHS = rearrange(decay_BSH, "b s h -> b h s")
    bias_BHTS = decay_BHS[..., S - T :, None] - decay_BHS[..., None, :]
    later_TS = torch.ones(T, S, dtype=torch.bool, device=q_BTHK.device).triu(S - T + 1)
    bias_BHTS = bias_BHTS.masked_fill(later_TS, -math.inf)
    y_BHTK = F.scaled_dot_product_attention(
        q_BTHK.transpose(1, 2),
        k_BSGK.transpose(1, 2),
        v_BSGK.transpose(1, 2),
        attn_mask=bias_BHTS.to(q_BTHK.dtype),
        enable_gqa=q_BTHK.shape[2] != k_BSGK.shape[2],
    )
    return y_BHTK.transpose(1, 2)
