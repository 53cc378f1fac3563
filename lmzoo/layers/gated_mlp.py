"""The gated feed-forward layer of most transformers since 2020."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.linear import Linear


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202), without biases; gate and up are one product."""

    def __init__(self, d_model: int, d_ff: int, *, std: float = 0.02) -> None:
        super().__init__()
        self.gate_up = Linear(d_model, 2 * d_ff, bias=False, std=std)
        self.down = Linear(d_ff, d_model, bias=False, std=std)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
