"""Normalisation over features (never over time or batch)."""

from __future__ import annotations

import torch
from torch import nn


class LayerNorm(nn.LayerNorm):
    """Ba et al. 2016 (arXiv 1607.06450): mean and variance removed, then a gain and a bias."""

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        self.reset_parameters()


class RMSNorm(nn.RMSNorm):
    """Zhang & Sennrich 2019 (arXiv 1910.07467): divided by the root mean square, then a gain."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__(d_model, eps=eps)

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew, by `generator` or by the global random state."""
        self.reset_parameters()
