"""A small recurrent network: a short convolution, then a memory that a gate lets fade.

    u_t = sum over the last 3 tokens of (a learned weight for each channel and distance) x value
    h_t = a_t h_(t-1) + (1 - a_t) u_t        a_t between 0 and 1, from the token
    y_t = W_out (silu(gate_t) h_t / rms(h_t))

The state is h, and the values of the last two tokens, which the convolution of the next token needs.

Legend: B batch, T time, D model width, W width of the convolution.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.linear_recurrence import linear_recurrence
from lmzoo.ops.precision import wide, wide_dtype

WIDTH = 3


class Memory(NamedTuple):
    """The state: the last values (B, W - 1, D) and the memory (B, D)."""

    tail: Tensor
    h: Tensor


class Recurrence(Layer):
    """A short convolution and a gated memory."""

    state_growth: ClassVar[str] = "constant"
    taps: Tensor  # (W, D)

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.inner = Linear(d_model, 3 * d_model)
        self.own("taps", (WIDTH, d_model), uniform_fan_in(3.0), role="vector")
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Memory:
        """Returns the state before the first token."""
        D = self.taps.shape[1]
        h_BD = like.new_zeros(batch_size, D, dtype=wide_dtype(like.dtype))
        return Memory(like.new_zeros(batch_size, WIDTH - 1, D), h_BD)

    def forward(self, x_BTD: Tensor, state: Memory | None, ctx: Context) -> tuple[Tensor, Memory | None]:
        """Returns the output and the next state."""
        B, T, _ = x_BTD.shape
        value_BTD, keep_BTD, gate_BTD = self.inner(x_BTD).chunk(3, dim=-1)
        past = self.init_state(B, 0, value_BTD) if state is None else state
        seen = torch.cat([past.tail, value_BTD], dim=1)
        u_BTD = torch.stack([seen[:, w : w + T] * self.taps[w] for w in range(WIDTH)]).sum(0)
        a_BTD = torch.sigmoid(wide(keep_BTD))
        h_BTD, h_BD = linear_recurrence(a_BTD, (1 - a_BTD) * u_BTD, past.h)
        rms = (h_BTD.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        y_BTD = self.out((F.silu(gate_BTD) * h_BTD / rms).to(x_BTD.dtype))
        if state is None:
            return y_BTD, None
        return y_BTD, Memory(seen[:, T:], h_BD)


@lmzoo.register_model("puzzle")
class Puzzle(lmzoo.MixerModel):
    """A recurrent network with a gated memory."""

    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer`."""
        return Recurrence(config.d_model)
