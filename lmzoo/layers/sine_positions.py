"""Positions as sines and cosines. Legend: T time, D model width."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinePositions(nn.Module):
    """Sines and cosines of the position, of wavelengths from 2 pi to 2 pi 10000 (Vaswani et al. 2017, 1706.03762).

    As in tensor2tensor and fairseq: first all sines, then all cosines, and the position is counted from `first`.
    Nothing is learned, so any position has a vector.
    """

    def __init__(self, d_model: int, first: int = 0) -> None:
        super().__init__()
        self.d_model, self.first = d_model, first

    def forward(self, positions_T: Tensor) -> Tensor:
        """Maps positions (T,) to (T, D), in float32."""
        half = self.d_model // 2
        k_K = torch.arange(half, device=positions_T.device, dtype=torch.float32)
        frequency_K = torch.exp(k_K * (-math.log(10000) / (half - 1)))
        angle_TK = (positions_T + self.first).float()[:, None] * frequency_K
        return torch.cat([angle_TK.sin(), angle_TK.cos()], dim=1)
