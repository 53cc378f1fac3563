"""The feed-forward layer, gated or not. Legend: B batch, T time, D model width, F inner width."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.init import Init, normal
from lmzoo.layers.linear import Linear

Activation = Callable[[Tensor], Tensor]


def squared_relu(x: Tensor) -> Tensor:
    """Returns `relu(x)²` (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()


class MLP(nn.Module):
    """`down(activation(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202), or `down(activation(up(x)))` if not gated.

    With silu, the default, the gated form is SwiGLU. Gate and up share one weight; its first F rows are the gate.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: Activation = F.silu,
        *,
        gated: bool = True,
        bias: bool = False,
        init: Init = normal(),
        init_down: Init = normal(),
    ) -> None:
        super().__init__()
        self.d_ff, self.activation, self.gated = d_ff, activation, gated
        self.up = Linear(d_model, 2 * d_ff if gated else d_ff, bias=bias, init=init)
        self.down = Linear(d_ff, d_model, bias=bias, init=init_down)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Maps (B, T, D) to (B, T, D)."""
        y_BTF = self.up(x_BTD)
        if not self.gated:
            return self.down(self.activation(y_BTF))
        gate_BTF, up_BTF = y_BTF.chunk(2, dim=-1)
        return self.down(self.activation(gate_BTF) * up_BTF)


def swiglu_width(d_model: int) -> int:
    """Returns the usual inner width of a gated layer: 8/3 of `d_model`, rounded up to a multiple of 32.

    With 8/3 of `d_model` it has as many parameters as a plain layer of width 4 d_model.
    """
    return -(-8 * d_model // 3 // 32) * 32
