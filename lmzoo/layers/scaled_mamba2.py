"""Mamba-2 whose projected inputs have constant factors. Legend as in `lmzoo.layers.mamba2`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmzoo.layers.mamba2 import Mamba2


class ScaledMamba2(Mamba2):
    """`Mamba2` with five factors, for the gate, x, B, C and the step size (Falcon-H1: arXiv 2507.22448).

    They take the place of learning rates and initial values for each part of the projection. With `gate_last`, the
    norm comes before the gate. `options` are those of `Mamba2`.
    """

    def __init__(self, d_model: int, *, factors: Sequence[float], gate_last: bool = False, **options: Any) -> None:
        super().__init__(d_model, **options)
        self.factors, self.gate_last = factors, gate_last

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the scaled gate (B, T, E), input of the convolution (B, T, E + 2 G N) and step sizes (B, T, H)."""
        parts = self.in_proj(x_BTD).split([self.widths[0], *self.conv_widths, self.n_heads], dim=-1)
        gate, x, B, C, dt = (factor * part for factor, part in zip(self.factors, parts, strict=True))
        return gate, torch.cat([x, B, C], dim=-1), dt

    def gated(self, y_BTE: Tensor, gate_BTE: Tensor) -> Tensor:
        """Returns the outputs times the gate, normalized before or after that."""
        return self.norm(y_BTE) * gate_BTE if self.gate_last else super().gated(y_BTE, gate_BTE)
