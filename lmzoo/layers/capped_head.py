"""A head whose logits are bounded (Gemma 2: arXiv 2408.00118, section 2). Legend: D model width, V vocabulary."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class CappedHead(nn.Module):
    """`cap * tanh(head(x) / cap)`: logits between -cap and cap. `head` is a head of `lmzoo.layers.head`."""

    def __init__(self, head: nn.Module, cap: float) -> None:
        super().__init__()
        self.linear, self.cap = head, cap

    @property
    def weight(self) -> Tensor:
        """Returns the weight of the head (V, D)."""
        return cast(Tensor, self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (..., D) to logits (..., V)."""
        return self.cap * torch.tanh(self.linear(x) / self.cap)
