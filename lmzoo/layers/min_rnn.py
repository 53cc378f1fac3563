"""The mixers minGRU and minLSTM (Feng et al. 2024, arXiv 2410.01201): recurrent cells whose gates do not see the state.

Legend: B batch, T time, D model width, E inner width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.log_scan import log_scan
from lmzoo.ops.precision import wide, wide_dtype

Cell = Literal["gru", "lstm"]


class MinRNN(Layer):
    """`h_t = f_t h_{t-1} + i_t g(v_t)` with gates of the token alone, then a projection from E to D features.

    The gates of the cell "gru" are i = sigmoid(z), f = 1 - i. The cell "lstm" has two gates, normalized to a sum of 1:
    i = sigmoid(p) / (sigmoid(p) + sigmoid(q)), f = 1 - i. g(v) is v + 1/2 for v >= 0 and sigmoid(v) below, so that h is
    positive and the scan can work with logarithms. The state is h itself, (B, E), float32 or wider; it starts at zero.
    """

    reach = None
    state_growth = "constant"

    def __init__(self, d_model: int, *, expand: int = 2, cell: Cell = "gru") -> None:
        super().__init__()
        self.cell, self.inner = cell, expand * d_model
        n_parts = 2 if cell == "gru" else 3  # v and the gate, or v, the gate to forget and the input gate
        self.in_proj = Linear(d_model, n_parts * self.inner, bias=False, init=uniform_fan_in())
        self.out = Linear(self.inner, d_model, bias=False, init=uniform_fan_in())

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, E)."""
        return like.new_zeros(batch_size, self.inner, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add for each feature of the state."""
        return 2.0 * self.inner

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        v_BTE, odds_BTE = self.value_and_odds(x_BTD)
        h_BTE, state_BE = log_scan(F.logsigmoid(-odds_BTE), F.logsigmoid(odds_BTE) + log_g(v_BTE), state)
        return self.out(h_BTE.to(x_BTD.dtype)), None if state is None else state_BE

    def value_and_odds(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v and the number whose sigmoid is i, (B, T, E) each; f is the sigmoid of its negative."""
        v_BTE, *gates = wide(self.in_proj(x_BTD)).chunk(2 if self.cell == "gru" else 3, dim=-1)
        return v_BTE, gates[0] if self.cell == "gru" else F.logsigmoid(gates[1]) - F.logsigmoid(gates[0])

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the gates f and i."""
        _, odds_BTE = self.value_and_odds(x_BTD)
        return {"gates.decay": (-odds_BTE).sigmoid(), "gates.write": odds_BTE.sigmoid()}


def log_g(v: Tensor) -> Tensor:
    """Returns log g(v), with g(v) = v + 1/2 for v >= 0 and sigmoid(v) below."""
    return torch.where(v >= 0, torch.log(v.clamp(min=0) + 0.5), F.logsigmoid(v))
