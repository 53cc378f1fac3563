"""A layer of gated recurrent units (Cho et al. 2014, arXiv 1406.1078), with the equations of torch.nn.GRU.

Initial values are uniform in ±1/sqrt(d_model) as in torch. Deviations: the reset gate multiplies the recurrent product
and not the state before it (see `lmzoo.ops.gru`); one bias for each of the gates r and z, where torch.nn.GRU adds two.
Legend: B batch, T time, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.layers.lstm import shifted
from lmzoo.ops.gru import gru_scan
from lmzoo.ops.precision import wide_dtype


class GRU(Layer):
    """One layer of gated recurrent units. The rows of the weights are the gates r, z, n, as in torch.nn.GRU.

    Its state is the output of the last token, (B, D), float32 or wider.
    """

    reach = None
    state_growth = "constant"
    weight_ih: Tensor  # (3 D, D), from the input
    weight_hh: Tensor  # (3 D, D), from the last output
    bias: Tensor  # (3 D,)
    bias_hn: Tensor  # (D,), of the recurrent part of n, which the reset gate multiplies

    def __init__(self, d_model: int) -> None:
        super().__init__()
        init = uniform(d_model**-0.5)
        self.own("weight_ih", (3 * d_model, d_model), init, "matrix")
        self.own("weight_hh", (3 * d_model, d_model), init, "matrix")
        self.own("bias", (3 * d_model,), init)
        self.own("bias_hn", (d_model,), init)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, D)."""
        return like.new_zeros(batch_size, len(self.bias_hn), dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token."""
        return 2.0 * (self.weight_ih.numel() + self.weight_hh.numel())

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        gates_x = F.linear(x_BTD, self.weight_ih, self.bias)
        y_BTD, h_BD = gru_scan(gates_x, self.weight_hh, self.bias_hn, state)
        return y_BTD, None if state is None else h_BD

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the gates z, 1 - z and r, which depend on the last output."""
        gates_x = F.linear(x_BTD, self.weight_ih, self.bias)
        y_BTD, _ = gru_scan(gates_x, self.weight_hh, self.bias_hn, None)
        gates_BTG = gates_x + F.linear(shifted(y_BTD), self.weight_hh)
        r_BTD, z_BTD = gates_BTG[..., : 2 * y_BTD.shape[-1]].sigmoid().chunk(2, dim=-1)
        return {"gates.decay": z_BTD, "gates.write": 1 - z_BTD, "gates.reset": r_BTD}
