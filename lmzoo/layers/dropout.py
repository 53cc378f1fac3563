"""Dropout as a layer."""

from __future__ import annotations

from torch import Tensor, nn

from lmzoo.ops.dropout import dropout


class Dropout(nn.Dropout):
    """`nn.Dropout` with a faster random generator on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """In training each value is 0 with probability p and scaled by 1 / (1 - p) otherwise, for any shape."""
        return dropout(input, self.p) if self.training and self.p else input
