"""A long convolution with one learned tap for each distance in the context.

Ours: a long convolution by FFT sees as many tokens as the filter has taps, and rounding errors of all others.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide

CAUGHT_BY = "receptive_field"


class Mixer(Layer):
    """`y_t = sum of taps_s u_{t-s}` over the distances s below the number of taps, and a gate."""

    state_growth = "constant"

    def __init__(self, d_model: int, length: int) -> None:
        super().__init__()
        self.inputs = Linear(d_model, 2 * d_model, bias=False)
        self.own("taps", (length, d_model), uniform(0.3), "vector")
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch_size, len(self.taps) - 1, self.out.in_features)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        u_BTD, gate_BTD = self.inputs(x_BTD).chunk(2, dim=-1)
        seen_BSD = u_BTD if state is None else torch.cat([state.to(u_BTD.dtype), u_BTD], dim=1)
        S, L = seen_BSD.shape[1], len(self.taps)
        n = 1 << (S + L - 1).bit_length()
        spectrum = torch.fft.rfft(wide(seen_BSD), n=n, dim=1) * torch.fft.rfft(wide(self.taps), n=n, dim=0)
        y_BTD = torch.fft.irfft(spectrum, n=n, dim=1)[:, S - x_BTD.shape[1] : S].to(x_BTD.dtype)
        tail = None if state is None else seen_BSD[:, S - (L - 1) :].to(state.dtype, copy=True)
        return self.out(y_BTD * F.silu(gate_BTD)), tail


class MODEL(lmzoo.MixerModel):
    """Convolutions as long as the context."""

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        return Mixer(config.d_model, config.context_length)
