"""Exponential input gates, normalized by their sum, without a running maximum of their exponents.

Ours: gates stay in range at usual weights, and exceed float64 only far beyond them. It is the stabilizer m of sLSTM and
mLSTM, left out (Beck et al. 2024, arXiv 2405.04517, equations 15 to 17).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.layers.context import Context
from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide, wide_dtype

CAUGHT_BY = "large_weights"
Cell = tuple[Tensor, Tensor]


class ExponentialGate(Layer):
    """c_t = f_t c_{t-1} + exp(i_t) z_t and n_t = f_t n_{t-1} + exp(i_t), read as c_t / n_t."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.values = Linear(d_model, d_model, bias=False)
        self.write = Linear(d_model, d_model)
        self.forget = Linear(d_model, d_model, bias_init=constant(2.0))
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Cell:
        zeros_BD = like.new_zeros(batch_size, self.out.in_features, dtype=wide_dtype(like.dtype))
        return zeros_BD, zeros_BD.clone()

    def forward(self, x_BTD: Tensor, state: Cell | None, ctx: Context) -> tuple[Tensor, Cell | None]:
        z_BTD, i_BTD, f_BTD = (wide(layer(x_BTD)) for layer in (self.values, self.write, self.forget))
        c_BD, n_BD = self.init_state(len(x_BTD), 0, z_BTD) if state is None else state
        read = []
        for z_BD, i_BD, f_BD in zip(z_BTD.unbind(1), i_BTD.unbind(1), f_BTD.unbind(1), strict=True):
            keep_BD, add_BD = F.logsigmoid(f_BD).exp(), i_BD.exp()
            c_BD, n_BD = keep_BD * c_BD + add_BD * z_BD, keep_BD * n_BD + add_BD
            read.append(c_BD / n_BD)
        y_BTD = self.out(torch.stack(read, dim=1).to(x_BTD.dtype))
        return y_BTD, None if state is None else (c_BD, n_BD)


class MODEL(lmzoo.MixerModel):
    def make_mixer(self, config: lmzoo.MixerConfig, layer: int) -> ExponentialGate:
        return ExponentialGate(config.d_model)
