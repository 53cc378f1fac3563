"""Attention with a gate on its output. Legend: B batch, T time, D model width, H query heads, K head width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.linear import Linear
from lmzoo.layers.scored_attention import ScoredAttention


class GatedAttention(ScoredAttention):
    """`out(sigmoid(gate(x)) * y)` (Qiu et al. 2025, arXiv 2505.06708), y being the concatenated heads' outputs.

    A head can then add nothing, which softmax alone does not allow. `options` are those of `ScoredAttention`.
    """

    def __init__(self, d_model: int, n_heads: int, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        self.gate = Linear(d_model, self.widths[0], bias=self.qkv.bias is not None)

    def merge(self, y_BTHK: Tensor, x_BTD: Tensor) -> Tensor:
        """Gates, concatenates and projects the heads: (B, T, D)."""
        return self.out(self.output_gate(x_BTD) * y_BTHK.flatten(2))

    def output_gate(self, x_BTD: Tensor) -> Tensor:
        """Returns the factors of the heads' outputs, (B, T, H K)."""
        return torch.sigmoid(self.gate(x_BTD))

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights and the gates."""
        return super().offers(x_BTD, ctx) | {"gates.output": self.output_gate(x_BTD)}
