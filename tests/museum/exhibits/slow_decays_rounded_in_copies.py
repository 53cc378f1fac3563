"""Fading averages with learned rates, many of them very slow.

Ours: shares of memory up to 0.9995 are 1 in a copy with weights of 16 bits, which shows in long texts alone.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.precision import wide, wide_dtype

CAUGHT_BY = "bfloat16"


class Mixer(Layer):
    """Each channel keeps a learned share of its memory, from 0.9 to 0.9995 at first."""

    state_growth = "constant"

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.inputs = Linear(d_model, 2 * d_model, bias=False)
        self.own("keep", (d_model,), slow)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch_size, self.out.in_features, dtype=wide_dtype(like.dtype))

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        value_BTD, gate_BTD = self.inputs(x_BTD).chunk(2, dim=-1)
        keep_D = wide(self.keep).clamp(0, 1)
        h_BD = self.init_state(len(x_BTD), 0, x_BTD) if state is None else state
        hs = []
        for v_BD in wide(value_BTD).unbind(1):
            h_BD = keep_D * h_BD + v_BD
            hs.append(h_BD)
        y_BTD = self.out(torch.stack(hs, dim=1).to(x_BTD.dtype) * F.silu(gate_BTD))
        return y_BTD, None if state is None else h_BD


def slow(keep_D: Tensor, generator: torch.Generator | None) -> None:
    """Draws shares whose distance from 1 is log-uniform between 0.0005 and 0.1."""
    keep_D.uniform_(math.log(0.0005), math.log(0.1), generator=generator).exp_().neg_().add_(1)


class MODEL(lmzoo.MixerModel):
    """Slow averages."""

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        return Mixer(config.d_model)
