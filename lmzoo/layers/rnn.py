"""A layer of simple recurrent units (Elman 1990), with the equation of torch.nn.RNN.

Initial values are uniform in ±1/sqrt(d_model) as in torch. Deviation: one bias, where torch.nn.RNN adds two. Legend: B
batch, T time, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.ops.precision import wide_dtype
from lmzoo.ops.rnn import rnn_scan


class RNN(Layer):
    """`h_t = tanh(W_ih x_t + W_hh h_{t-1} + b)`.

    Its state is the output of the last token, (B, D), float32 or wider.
    """

    reach = None
    state_growth = "constant"
    weight_ih: Tensor  # (D, D), from the input
    weight_hh: Tensor  # (D, D), from the last output
    bias: Tensor  # (D,)

    def __init__(self, d_model: int) -> None:
        super().__init__()
        init = uniform(d_model**-0.5)
        self.own("weight_ih", (d_model, d_model), init, "matrix")
        self.own("weight_hh", (d_model, d_model), init, "matrix")
        self.own("bias", (d_model,), init)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, D)."""
        return like.new_zeros(batch_size, len(self.bias), dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token."""
        return 2.0 * (self.weight_ih.numel() + self.weight_hh.numel())

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        y_BTD, h_BD = rnn_scan(F.linear(x_BTD, self.weight_ih, self.bias), self.weight_hh, state)
        return y_BTD, None if state is None else h_BD
