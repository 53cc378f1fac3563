"""Rotary positions (Su et al. 2021, arXiv 2104.09864): queries and keys turned by an angle that grows with position."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(position: int, T: int, head_dim: int, theta: float, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the positions `position` ... `position + T - 1`: (T, head_dim / 2) each, float32.

    The angles are formed in float64: at position 100,000 float32 would be off by hundredths of a radian.
    """
    frequency_K = theta ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim)
    angle_TK = torch.arange(position, position + T, device=device, dtype=torch.float64)[:, None] * frequency_K
    return angle_TK.cos().float(), angle_TK.sin().float()


def apply_rope(x_BTHK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + K/2}) by its position's angle: the half-split pairing of Llama checkpoints."""
    cos_T1K, sin_T1K = cos_TK[:, None].to(x_BTHK.dtype), sin_TK[:, None].to(x_BTHK.dtype)
    first, second = x_BTHK.chunk(2, dim=-1)
    return torch.cat([first * cos_T1K - second * sin_T1K, second * cos_T1K + first * sin_T1K], dim=-1)
