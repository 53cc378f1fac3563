"""A layer of LSTM cells (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000).

Initial values are uniform in ±1/sqrt(d_model) as in torch; the bias of the forget gate is 1 (Jozefowicz, Zaremba &
Sutskever 2015). Deviation: one bias per gate, where torch.nn.LSTM adds two. Legend: B batch, T time, D width.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.ops.lstm import lstm_scan
from lmzoo.ops.precision import wide_dtype


class LSTMState(NamedTuple):
    """Output and cell state of the last token, (B, D) each, float32 or wider."""

    h: Tensor
    c: Tensor


class LSTM(Layer):
    """One layer of LSTM cells. The rows of the weights are the gates i, f, g, o, as in torch.nn.LSTM."""

    reach = None
    state_growth = "constant"
    weight_ih: Tensor  # (4 D, D), from the input
    weight_hh: Tensor  # (4 D, D), from the last output
    bias: Tensor  # (4 D,)

    def __init__(self, d_model: int) -> None:
        super().__init__()
        init = uniform(d_model**-0.5)
        self.own("weight_ih", (4 * d_model, d_model), init, "matrix")
        self.own("weight_hh", (4 * d_model, d_model), init, "matrix")
        self.own("bias", (4 * d_model,), partial(_bias, d_model**-0.5))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> LSTMState:
        """Returns zeros (B, D) for output and cell state."""
        zeros_BD = like.new_zeros(batch_size, self.weight_hh.shape[1], dtype=wide_dtype(like.dtype))
        return LSTMState(zeros_BD, zeros_BD.clone())

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token."""
        return 2.0 * (self.weight_ih.numel() + self.weight_hh.numel())

    def forward(self, x_BTD: Tensor, state: LSTMState | None, ctx: Context) -> tuple[Tensor, LSTMState | None]:
        y_BTD, (h_BD, c_BD) = lstm_scan(F.linear(x_BTD, self.weight_ih, self.bias), self.weight_hh, state)
        return y_BTD, None if state is None else LSTMState(h_BD, c_BD)

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the gates f, i and o, which depend on the last output."""
        gates_x = F.linear(x_BTD, self.weight_ih, self.bias)
        y_BTD, _ = lstm_scan(gates_x, self.weight_hh, None)
        gates_BTG = gates_x + F.linear(shifted(y_BTD), self.weight_hh)
        i_BTD, f_BTD, _, o_BTD = gates_BTG.sigmoid().chunk(4, dim=-1)
        return {"gates.decay": f_BTD, "gates.write": i_BTD, "gates.output": o_BTD}


def shifted(y_BTD: Tensor) -> Tensor:
    """Returns the output of the token before each one, zeros before the first."""
    return torch.cat([torch.zeros_like(y_BTD[:, :1]), y_BTD[:, :-1]], dim=1)


def _bias(bound: float, bias: Tensor, generator: torch.Generator | None) -> None:
    """Draws the bias uniformly from ±bound and sets the forget gate's part to 1, so that cells keep their values."""
    uniform(bound)(bias, generator)
    nn.init.ones_(bias.chunk(4)[1])
