"""Causal softmax attention: the definition, torch's fused kernel, and a form that compiles, behind one dispatcher.

Legend: B batch, T queries, S keys (the T newest among them), H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.cpu.short_attention import is_short, short_attention
from lmzoo.ops.precision import wide


def naive_attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, *, window: int | None = None) -> Tensor:
    """The definition, one query at a time: softmax(q·k / sqrt(K)) over the keys up to the position of the query.

    Query t is at the position of key S - T + t and attends to the last `window` keys up to and with that one (None:
    all). Query head h reads key/value head h // (H / G). Returns (B, T, H, K).
    """
    T, S, H, G = q_BTHK.shape[1], k_BSGK.shape[1], q_BTHK.shape[2], k_BSGK.shape[2]
    k_BSHK, v_BSHK = (repeat(x, "b s g k -> b s (g r) k", r=H // G) for x in (k_BSGK, v_BSGK))
    outputs = []
    for t in range(T):
        end = S - T + t + 1
        start = 0 if window is None else max(0, end - window)
        scores_BSH = torch.einsum("bhk,bshk->bsh", q_BTHK[:, t], k_BSHK[:, start:end]) / math.sqrt(q_BTHK.shape[-1])
        outputs.append(torch.einsum("bsh,bshk->bhk", scores_BSH.softmax(dim=1), v_BSHK[:, start:end]))
    return torch.stack(outputs, dim=1)


def causal_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, *, window: int | None = None, dropout: float = 0.0
) -> Tensor:
    """`naive_attention` by the fastest form that fits, with dropout on the attention weights. Returns (B, T, H, K).

    Values may have another width than keys; the result has the width of the values.
    """
    T, S = q_BTHK.shape[1], k_BSGK.shape[1]
    if T == 1 and not dropout and torch.compiler.is_compiling() and q_BTHK.device.type == "cpu":
        return single_query_attention(q_BTHK, k_BSGK, v_BSGK)
    in_window = window is None or window >= S
    if q_BTHK.shape[-1] == v_BSGK.shape[-1] and is_short(q_BTHK, k_BSGK, dropout):
        mask_TT = _causal_mask(T, S, window, q_BTHK.device)
        return short_attention(q_BTHK, k_BSGK, v_BSGK, mask_TT, dropout=dropout)
    mask_TS = None
    if T > 1 and not (in_window and T == S):
        mask_TS = _causal_mask(T, S, window, q_BTHK.device)
    q_BHTK, k_BGSK, v_BGSK = (x.transpose(1, 2) for x in (q_BTHK, k_BSGK, v_BSGK))
    attend = F.scaled_dot_product_attention if q_BTHK.shape[-1] == v_BSGK.shape[-1] else fused_attention
    y_BHTK = attend(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=mask_TS,
        is_causal=T > 1 and mask_TS is None,
        dropout_p=dropout,
        enable_gqa=q_BTHK.shape[2] != k_BSGK.shape[2],
    )
    return y_BHTK.transpose(1, 2)


def fused_attention(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, **options: Any) -> Tensor:
    """`F.scaled_dot_product_attention` with these options, for any H / G and any width of values. Returns (B, H, T, V).

    On a CPU torch's fused kernel takes values of the width of keys alone, so narrower ones are padded. Its backward
    pass is several times slower in 16 bits, so it runs in float32 or wider. Counts as the products with values that are
    not padded.
    """
    (B, H, T, K), (G, S, V) = q_BHTK.shape, v_BGSV.shape[1:]
    options["enable_gqa"] = H != G
    if q_BHTK.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSV, **options)
    with torch.autocast("cpu", enabled=False), counted_as(2 * B * H * T * S * (K + V)):
        padded_BGSX = F.pad(wide(v_BGSV), (0, max(0, K - V)))
        y_BHTX = F.scaled_dot_product_attention(wide(q_BHTK), wide(k_BGSK), padded_BGSX, **options)
    return y_BHTX[..., :V].to(v_BGSV.dtype)


def single_query_attention(q_B1HK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor) -> Tensor:
    """The attention of the newest token to all keys, as sums of products in float32. Returns (B, 1, H, K).

    The compiler fuses these loops with the operations before and after; it cannot fuse torch's kernels.
    """
    G, K = k_BSGK.shape[2:]
    q_B1GRK = q_B1HK.unflatten(2, (G, -1)).float() / math.sqrt(K)
    scores_BSGR = (q_B1GRK * k_BSGK[:, :, :, None].float()).sum(dim=-1)
    y_BGRK = (scores_BSGR.softmax(dim=1)[..., None] * v_BSGK[:, :, :, None].float()).sum(dim=1)
    return y_BGRK.flatten(1, 2)[:, None].to(q_B1HK.dtype)


def _causal_mask(T: int, S: int, window: int | None, device: torch.device) -> Tensor:
    """True where query t may attend to key s. For T = 1 the caller has already cut the keys to the window."""
    behind_TS = torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)
    allowed_TS = behind_TS >= 0
    return allowed_TS if window is None else allowed_TS & (behind_TS < window)
