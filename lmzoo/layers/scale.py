"""A multiplication by a number. Legend: D model width, V vocabulary."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class Scale(nn.Module):
    """`factor * inner(x)`; without `inner`, `factor * x`. Around a head, it has the weight of the head."""

    def __init__(self, factor: float, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.factor, self.inner = factor, inner

    @property
    def weight(self) -> Tensor:
        """Returns the weight of the inner head (V, D)."""
        return cast(Tensor, cast(nn.Module, self.inner).weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (..., D) to what `inner` maps them to, or to (..., D)."""
        return self.factor * (x if self.inner is None else self.inner(x))
