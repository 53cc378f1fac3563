"""A norm takes its mean and variance over the whole sequence.

Wan-Video/Wan2.1#294 and RookieJunChen/FullSubNet-plus#5 (GroupNorm over frames in a causal model).
"""

from __future__ import annotations

from torch import Tensor, nn

from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "causality"


class TimeNorm(nn.Module):
    def forward(self, x_BTD: Tensor) -> Tensor:
        return (x_BTD - x_BTD.mean((1, 2), keepdim=True)) / (
            x_BTD.var((1, 2), keepdim=True, correction=0) + 1e-5
        ).sqrt()


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.norm = TimeNorm()
