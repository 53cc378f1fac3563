"""Causal softmax attention whose scores are changed before or in the softmax: the definition, and all queries at once.

Three changes, each optional:

- `cap`: scores stay within ±cap, by cap * tanh(score / cap) (Gemma 2, arXiv 2408.00118)
- `slopes_H`: score - slope * distance, one slope for each head (ALiBi, Press et al. 2021, arXiv 2108.12409)
- `sinks_H`: one more score for each head, of a key without a value, so that the weights of the real keys may sum to
  less than 1 (Xiao et al. 2023, arXiv 2309.17453; learned as in gpt-oss, arXiv 2508.10925)

torch's fused kernel has none of them in a form that keeps gradients of slopes or sinks. Legend: B batch, T queries,
S keys (the T newest among them), H query heads, G key/value heads, R = H / G, K head width.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from torch import Tensor

from lmzoo.ops.dropout import dropout as drop
from lmzoo.ops.precision import wide


def naive_scored_attention(
    q_BTHK: Tensor,
    k_BSGK: Tensor,
    v_BSGK: Tensor,
    *,
    window: int | None = None,
    cap: float | None = None,
    slopes_H: Tensor | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """The definition, one query at a time; returns (B, T, H, K).

    Query t is at the position of key S - T + t and attends to the last `window` keys up to and with that one (None:
    all). Query head h reads key/value head h // R.
    """
    T, S, H, G = q_BTHK.shape[1], k_BSGK.shape[1], q_BTHK.shape[2], k_BSGK.shape[2]
    k_BSHK, v_BSHK = (repeat(x, "b s g k -> b s (g r) k", r=H // G) for x in (k_BSGK, v_BSGK))
    outputs = []
    for t in range(T):
        now = S - T + t
        start = 0 if window is None else max(0, now + 1 - window)
        keys = slice(start, now + 1)
        scores_BSH = torch.einsum("bhk,bshk->bsh", q_BTHK[:, t], k_BSHK[:, keys]) / math.sqrt(q_BTHK.shape[-1])
        if cap is not None:
            scores_BSH = cap * torch.tanh(scores_BSH / cap)
        if slopes_H is not None:
            distance_S = now - torch.arange(start, now + 1, device=q_BTHK.device)
            scores_BSH = scores_BSH - slopes_H * distance_S[:, None]
        if sinks_H is not None:
            scores_BSH = torch.cat([scores_BSH, sinks_H.expand(len(q_BTHK), 1, H)], dim=1)
        weights_BSH = scores_BSH.softmax(dim=1)[:, : now + 1 - start]
        outputs.append(torch.einsum("bsh,bshk->bhk", weights_BSH, v_BSHK[:, keys]))
    return torch.stack(outputs, dim=1)


def scored_attention(
    q_BTHK: Tensor,
    k_BSGK: Tensor,
    v_BSGK: Tensor,
    *,
    window: int | None = None,
    cap: float | None = None,
    slopes_H: Tensor | None = None,
    sinks_H: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`naive_scored_attention` for all queries at once, with dropout on the attention weights. Returns (B, T, H, K).

    Scores and softmax are computed in float32 or wider. The weights (B, H, T, S) are kept for the backward pass.
    """
    T, S, G = q_BTHK.shape[1], k_BSGK.shape[1], k_BSGK.shape[2]
    q_BTGRK = rearrange(q_BTHK, "b t (g r) k -> b t g r k", g=G)
    scores_BGRTS = torch.einsum("btgrk,bsgk->bgrts", q_BTGRK, k_BSGK)
    scores_BHTS = wide(scores_BGRTS.flatten(1, 2)) / math.sqrt(q_BTHK.shape[-1])
    if cap is not None:
        scores_BHTS = cap * torch.tanh(scores_BHTS / cap)
    behind_TS = torch.arange(S - T, S, device=q_BTHK.device)[:, None] - torch.arange(S, device=q_BTHK.device)
    if slopes_H is not None:
        scores_BHTS = scores_BHTS - slopes_H[:, None, None] * behind_TS
    unseen_TS = behind_TS < 0 if window is None else (behind_TS < 0) | (behind_TS >= window)
    scores_BHTS = scores_BHTS.masked_fill(unseen_TS, -math.inf)
    if sinks_H is not None:
        sinks_BHT1 = wide(sinks_H)[:, None, None].expand(len(q_BTHK), -1, T, 1)
        scores_BHTS = torch.cat([scores_BHTS, sinks_BHT1], dim=-1)
    weights_BHTS = scores_BHTS.softmax(dim=-1)[..., :S].to(v_BSGK.dtype)
    if dropout:
        weights_BHTS = drop(weights_BHTS, dropout)
    weights_BGRTS = weights_BHTS.unflatten(1, (G, -1))
    return torch.einsum("bgrts,bsgk->btgrk", weights_BGRTS, v_BSGK).flatten(2, 3)


def alibi_slopes(n_heads: int) -> list[float]:
    """Returns ALiBi's slopes: 2^(-8/n), 2^(-16/n), ... 2^-8 if the number of heads n is a power of two.

    Otherwise the slopes of the largest power of two below n, then every second one of those for twice that power, as
    in the code of the paper's authors.
    """
    near = 1 << (n_heads.bit_length() - 1)  # the largest power of two up to n_heads
    slopes = [2.0 ** (-8 * (i + 1) / near) for i in range(near)]
    return slopes + [2.0 ** (-4 * (2 * i + 1) / near) for i in range(n_heads - near)]
