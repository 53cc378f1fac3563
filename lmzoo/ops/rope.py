"""Rotary position embedding (RoPE, Su et al. 2021, arXiv 2104.09864): rotates queries and keys by their position.

Legend: B batch, T time, H heads, K head width, R rotated features of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def rotated_features(head_dim: int, fraction: float) -> int:
    """Returns the number of features of a head that are rotated: this share of them, rounded down to an even number."""
    return int(head_dim * fraction + 1e-6) // 2 * 2  # a fraction such as 6/98 is not exact


def rope_table(
    position: int,
    T: int,
    rotated: int,
    theta: float,
    *,
    rescale: Callable[[Tensor, float], Tensor] | None = None,
    magnitude: float = 1.0,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the positions `position` ... `position + T - 1`: (T, rotated / 2) each.

    `rescale(frequencies, theta)` returns other frequencies, and `magnitude` multiplies the table, for texts longer than
    those of the training (`lmzoo.layers.rope_scaling`). The angles are computed in float64: at position 100,000 float32
    would be off by hundredths of a radian.
    """
    frequency_K = theta ** -(torch.arange(0, rotated, 2, device=device, dtype=torch.float64) / rotated)
    if rescale is not None:
        frequency_K = rescale(frequency_K, theta)
    angle_TK = torch.arange(position, position + T, device=device, dtype=torch.float64)[:, None] * frequency_K
    cos_TK, sin_TK = angle_TK.cos(), angle_TK.sin()
    if magnitude != 1:
        cos_TK, sin_TK = magnitude * cos_TK, magnitude * sin_TK
    return cos_TK.to(dtype), sin_TK.to(dtype)


def apply_rope(x_BTHK: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Rotates the first R = 2 cos_TR.shape[1] features of each head; the others pass through.

    Feature i is paired with feature i + R/2, as in checkpoints of Llama and GPT-NeoX.
    """
    half = cos_TR.shape[-1]
    cos_T1R, sin_T1R = cos_TR[:, None].to(x_BTHK.dtype), sin_TR[:, None].to(x_BTHK.dtype)
    first, second = x_BTHK[..., :half], x_BTHK[..., half : 2 * half]
    rotated = [first * cos_T1R - second * sin_T1R, second * cos_T1R + first * sin_T1R]
    rest = [x_BTHK[..., 2 * half :]] if x_BTHK.shape[-1] > 2 * half else []
    return torch.cat([*rotated, *rest], dim=-1)
