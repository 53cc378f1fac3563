"""A convolution of a few distant tokens before a gated recurrence.

Ours: a tail that is float32 at first and has the dtype of the weights after a token; a saved state of a copy in 16 bits
cannot be loaded.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide, wide_dtype

CAUGHT_BY = "state_dtype"
STRIDE, TAPS = 2, 3


class TapState(NamedTuple):
    tail: Tensor  # (B, (TAPS - 1) STRIDE, D), the last values
    memory: Tensor  # (B, D), float32 or wider


class Mixer(Layer):
    """Values at distances 0, 2 and 4, with one weight for each channel, then an average over time."""

    state_growth = "constant"

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.inputs = Linear(d_model, 2 * d_model, bias=False)
        self.own("taps", (TAPS, d_model), uniform(0.6), "vector")
        self.own("keep", (d_model,), uniform(2.0))
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> TapState:
        d_model, dtype = self.out.in_features, wide_dtype(like.dtype)
        tail_BSD = like.new_zeros(batch_size, (TAPS - 1) * STRIDE, d_model, dtype=dtype)
        return TapState(tail_BSD, like.new_zeros(batch_size, d_model, dtype=dtype))

    def forward(self, x_BTD: Tensor, state: TapState | None, ctx: Context) -> tuple[Tensor, TapState | None]:
        T = x_BTD.shape[1]
        value_BTD, gate_BTD = self.inputs(x_BTD).chunk(2, dim=-1)
        tail_BSD, h_BD = self.init_state(len(x_BTD), 0, x_BTD) if state is None else state
        seen_BSD = torch.cat([tail_BSD.to(value_BTD.dtype), value_BTD], dim=1)
        taps = self.taps.to(value_BTD.dtype)
        u_BTD = F.silu(sum(taps[i] * seen_BSD[:, i * STRIDE : i * STRIDE + T] for i in range(TAPS)))
        keep_D = torch.sigmoid(1 + wide(self.keep))
        hs = []
        for u_BD in wide(u_BTD).unbind(1):
            h_BD = keep_D * h_BD + (1 - keep_D) * u_BD
            hs.append(h_BD)
        y_BTD = self.out(torch.stack(hs, dim=1).to(x_BTD.dtype) * F.silu(gate_BTD))
        if state is None:
            return y_BTD, None
        return y_BTD, TapState(seen_BSD[:, T:].clone(), h_BD)


class MODEL(lmzoo.MixerModel):
    """Taps and averages."""

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        return Mixer(config.d_model)
