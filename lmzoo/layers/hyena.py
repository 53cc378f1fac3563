"""Hyena's mixer (Poli et al. 2023, arXiv 2302.10866): gates and long convolutions whose filters are computed.

Legend: B batch, T time, S earlier inputs, D model width, L longest text, W taps of the short convolution, O long
convolutions, F width of the network that computes the filters, Z features of a position.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import constant, normal, uniform, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.causal_conv1d import causal_conv1d
from lmzoo.ops.long_conv import long_conv
from lmzoo.ops.precision import wide_dtype
from lmzoo.state import Constant, TimeBuffer

LEAST, FAST, SLOW = 1e-2, 0.3, 1.5  # envelopes fall to LEAST within these multiples of the length L
SINE_FREQUENCY = 10.0  # initial, of the activations sin(frequency x)


class HyenaFilter(Layer):
    """Computes long filters from their positions: a network with sines, times a fixed exponential envelope.

    Positions are fractions of `length`, so the filters of a model depend on its longest text. They are computed in
    float64: three layers of sines with a high frequency multiply a rounding error by thousands.
    """

    reach = 1
    keep_float32 = ("w_in", "b_in", "w_mid", "b_mid", "w_out", "frequency")
    w_in: Tensor  # (F, Z)
    b_in: Tensor  # (F,)
    w_mid: Tensor  # (2, F, F)
    b_mid: Tensor  # (2, F)
    w_out: Tensor  # (O D, F)
    frequency: Tensor  # (F,)

    def __init__(self, n_channels: int, length: int, d_filter: int, n_bands: int) -> None:
        super().__init__()
        self.length, self.n_bands, n_features = length, n_bands, 1 + 2 * n_bands
        self.own("w_in", (d_filter, n_features), uniform_fan_in(), "matrix")
        self.own("b_in", (d_filter,), uniform(n_features**-0.5))
        self.own("w_mid", (2, d_filter, d_filter), uniform_fan_in(), "matrices")
        self.own("b_mid", (2, d_filter), uniform(d_filter**-0.5), "vector")
        self.own("w_out", (n_channels, d_filter), uniform_fan_in(), "matrix")
        self.own("frequency", (d_filter,), constant(SINE_FREQUENCY))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one position: a multiply-add for each weight."""
        return 2.0 * (self.w_in.numel() + self.w_mid.numel() + self.w_out.numel())

    def forward(self, T: int) -> Tensor:
        """Returns the first T positions of the filters, (T, O D); at most L."""
        # In float64, which autocast leaves alone.
        w_in, b_in, w_mid, b_mid, w_out, frequency_F = (
            weight.double() for weight in (self.w_in, self.b_in, self.w_mid, self.b_mid, self.w_out, self.frequency)
        )
        position_T1 = torch.arange(min(T, self.length), device=w_in.device, dtype=w_in.dtype)[:, None]
        share_T1 = position_T1 / max(self.length - 1, 1)
        turns_Z = torch.linspace(1e-4, self.n_bands - 1, self.n_bands, device=w_in.device, dtype=w_in.dtype)
        angle_TZ = 2 * math.pi * turns_Z * position_T1 / self.length
        h_TF = torch.cat([share_T1, angle_TZ.cos(), -angle_TZ.sin()], dim=-1)
        for w_FF, b_F in ((w_in, b_in), *zip(w_mid, b_mid, strict=True)):
            h_TF = torch.sin(frequency_F * F.linear(h_TF, w_FF, b_F))
        slowest, fastest = (-math.log(LEAST) / share for share in (SLOW, FAST))
        rate_D = torch.linspace(slowest, fastest, len(w_out), device=w_out.device, dtype=w_out.dtype)
        return (F.linear(h_TF, w_out) * torch.exp(-rate_D * share_T1)).to(wide_dtype(self.w_out.dtype))


class HyenaState(NamedTuple):
    """The decoding state of the mixer."""

    tail: Tensor  # (B, W - 1, (O + 2) D), the short convolution's last inputs
    inputs: tuple[TimeBuffer, ...]  # (B, S, D) for each long convolution, its inputs so far
    filters: Constant  # (L, O D)


class Hyena(Layer):
    """Gates and long convolutions in turn: `v = gate * v`, `v = long_conv(v) + D * v`, O times, then a last gate.

    Gates and v come from one projection and a short convolution. O = order - 1.
    """

    reach = None
    state_growth = "linear"
    conv_weight: Tensor  # ((O + 2) D, W)
    conv_bias: Tensor  # ((O + 2) D,)
    D: Tensor  # (O, D), weights of the direct paths

    def __init__(
        self, d_model: int, length: int, *, order: int = 2, d_conv: int = 3, d_filter: int = 64, n_bands: int = 16
    ) -> None:
        super().__init__()
        self.d_model, self.n_convs, inner = d_model, order - 1, (order + 1) * d_model
        self.in_proj = Linear(d_model, inner, init=uniform_fan_in(), bias_init=uniform(d_model**-0.5))
        self.own("conv_weight", (inner, d_conv), uniform_fan_in(), "vector")
        self.own("conv_bias", (inner,), uniform(d_conv**-0.5))
        self.filter = HyenaFilter(self.n_convs * d_model, length, d_filter, n_bands)
        self.own("D", (self.n_convs, d_model), normal(1.0), "vector")
        self.out_proj = Linear(d_model, d_model, init=uniform_fan_in(), bias_init=uniform(d_model**-0.5))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> HyenaState:
        """Returns zeros before the first token, empty buffers, and the filters of the present weights."""
        inner, width = self.conv_weight.shape
        tail = like.new_zeros(batch_size, width - 1, inner)
        size = {"device": like.device, "dtype": like.dtype}
        buffers = (TimeBuffer.empty(batch_size, max_len, self.d_model, **size) for _ in range(self.n_convs))
        with torch.no_grad():
            filters_LD = self.filter(self.filter.length)
        return HyenaState(tail, tuple(buffers), Constant(filters_LD))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: the taps, and (T + 1) / 2 products of each long convolution and channel."""
        return 2.0 * self.conv_weight.numel() + self.n_convs * self.d_model * (T + 1)

    def forward(self, x_BTD: Tensor, state: HyenaState | None, ctx: Context) -> tuple[Tensor, HyenaState | None]:
        tail, inputs, filters = (None, (None,) * self.n_convs, None) if state is None else state
        mixed_BTX, tail = causal_conv1d(self.in_proj(x_BTD), self.conv_weight, self.conv_bias, tail)
        last_gate, *gates, v_BTD = mixed_BTX.split(self.d_model, dim=-1)
        k_LD = self.filter(x_BTD.shape[1]) if filters is None else filters.tensor
        read: list[TimeBuffer] = []
        each = zip(reversed(gates), k_LD.split(self.d_model, dim=-1), self.D, inputs, strict=True)
        for gate_BTD, k_LX, D_D, before in each:
            v_BTD = gate_BTD * v_BTD
            y_BTD = long_conv(v_BTD, k_LX, None if before is None else before.entries())
            read += [] if before is None else [before.append(v_BTD)]
            v_BTD = (y_BTD + D_D * v_BTD).to(x_BTD.dtype)
        out_BTD = self.out_proj(last_gate * v_BTD)
        return out_BTD, None if filters is None else HyenaState(tail, tuple(read), filters)
