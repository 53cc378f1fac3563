"""Causal attention over short sequences in bfloat16 on a CPU: all attention weights at once, by matrix products.

If T is only a few times the head width, torch's fused kernel takes two to three times as long as plain matrix products
(docs/log.md), and the attention weights have no more values than the hidden activations of a feed-forward layer. So
they are saved, and the backward pass is four products and one pass over the weights.

Legend: B batch, T time, H query heads, G key/value heads, K head width; N = B·G, M = T·H/G queries of such a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmzoo.ops.cpu.dropout import dropout_noise
from lmzoo.ops.precision import wide_dtype

WIDTHS = 4  # the largest T, as a multiple of the head width
ROWS = 64  # queries at a time in the forward pass: keys after the last of them are skipped


def is_short(q_BTHK: Tensor, k_BSGK: Tensor, dropout: float = 0.0) -> bool:
    """True if `short_attention` supports these queries and keys and is faster than torch's kernel."""
    if dropout and torch.compiler.is_compiling():
        return False  # compiled code draws its dropout mask in another way
    T, K = q_BTHK.shape[1], q_BTHK.shape[3]
    on_processor = q_BTHK.device.type == "cpu" and q_BTHK.dtype == torch.bfloat16
    return on_processor and 1 < T <= WIDTHS * K and k_BSGK.shape[1] == T


def short_attention(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, mask_TT: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Attention of query t to the keys that `mask_TT[t]` allows, none of them after t. Returns (B, T, H, K).

    `dropout` applies to the attention weights.

    The scores and their softmax are computed in float32 or better, as torch's kernel does.
    """
    return _ShortAttention.apply(q_BTHK, k_BTGK, v_BTGK, mask_TT, dropout)


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, mask_TT: Tensor, dropout: float
    ) -> Tensor:
        T, G, H, K = *k_BTGK.shape[1:3], *q_BTHK.shape[2:]
        q_NMK, k_NTK, v_NTK = (_by_head(x, G) for x in (q_BTHK, k_BTGK, v_BTGK))
        exact = wide_dtype(q_NMK.dtype)
        scaled_NMK, exact_NTK = q_NMK.to(exact) / math.sqrt(K), k_NTK.to(exact)
        added_MT = torch.zeros_like(mask_TT, dtype=exact).masked_fill_(~mask_TT, -math.inf)
        added_MT = added_MT.repeat_interleave(H // G, dim=0)
        p_NMT, y_NMK = q_NMK.new_empty(*q_NMK.shape[:2], T), torch.empty_like(q_NMK)
        noise_NMT = dropout_noise(p_NMT, dropout) if dropout else None
        with torch.autocast("cpu", enabled=False):
            for start in range(0, T, ROWS):
                end = min(T, start + ROWS)
                rows = slice(start * (H // G), end * (H // G))
                scores = torch.baddbmm(added_MT[rows, :end], scaled_NMK[:, rows], exact_NTK[:, :end].mT)
                p_NMT[:, rows, :end] = scores.softmax(dim=-1)
                p_NMT[:, rows, end:] = 0
                weights = p_NMT[:, rows, :end]
                if noise_NMT is not None:
                    weights = weights * noise_NMT[:, rows, :end]
                y_NMK[:, rows] = torch.bmm(weights, v_NTK[:, :end])
        ctx.save_for_backward(q_NMK, k_NTK, v_NTK, p_NMT, noise_NMT)
        ctx.shapes = q_BTHK.shape, k_BTGK.shape
        return _by_time(y_NMK, q_BTHK.shape, G)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BTHK: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q_NMK, k_NTK, v_NTK, p_NMT, noise_NMT = ctx.saved_tensors
        q_shape, k_shape = ctx.shapes
        G, scale = k_shape[2], 1 / math.sqrt(q_shape[3])
        with torch.autocast("cpu", enabled=False):
            g_NMK = _by_head(g_BTHK.to(p_NMT.dtype), G)
            dp_NMT, weights_NMT = torch.bmm(g_NMK, v_NTK.mT), p_NMT
            if noise_NMT is not None:
                dp_NMT, weights_NMT = dp_NMT.mul_(noise_NMT), p_NMT * noise_NMT
            ds_NMT = torch._softmax_backward_data(dp_NMT, p_NMT, -1, p_NMT.dtype)
            dq_NMK = torch.bmm(ds_NMT, k_NTK).mul_(scale)
            dk_NTK = torch.bmm(ds_NMT.mT, q_NMK).mul_(scale)
            dv_NTK = torch.bmm(weights_NMT.mT, g_NMK)
        return _by_time(dq_NMK, q_shape, G), _by_time(dk_NTK, k_shape, G), _by_time(dv_NTK, k_shape, G), None, None


def _by_head(x_BTHK: Tensor, G: int) -> Tensor:
    """Rearrange (B, T, H, K) to (N, M, K): for each time, the query heads that share a key/value head."""
    B, T, H, K = x_BTHK.shape
    return x_BTHK.unflatten(2, (G, H // G)).transpose(1, 2).reshape(B * G, T * (H // G), K)


def _by_time(x_NMK: Tensor, shape: torch.Size, G: int) -> Tensor:
    """Rearrange (N, M, K) back to (B, T, H, K)."""
    B, T, H, K = shape
    return x_NMK.view(B, G, T, H // G, K).transpose(1, 2).reshape(shape)
