"""WaveNet's layer: a dilated causal convolution with a gate, a residual and a skip connection.

Van den Oord et al. 2016, arXiv 1609.03499, figure 4. Legend: B batch, T time, D model width, S width of the skip
connection, W taps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.dilated_taps import dilated_taps

SKIPS = "skips"  # in `Context.carry`: the sum of the skip connections so far, (B, T, S)


class GatedConv(Layer):
    """`z = tanh(W_f * x) sigmoid(W_g * x)`; returns `x + W_r z` and adds `W_s z` to the carried sum of the skips.

    Filter and gate are one convolution, whose first D outputs are the filter; skip and residual are one matrix, whose
    first S rows are the skip. The `last` layer of a model has no residual and returns the sum of the skips (B, T, S).
    The state is the last (width - 1) * dilation inputs.
    """

    state_growth = "constant"

    def __init__(self, d_model: int, d_skip: int, width: int, dilation: int, *, last: bool = False) -> None:
        super().__init__()
        self.d_model, self.d_skip, self.width, self.dilation, self.last = d_model, d_skip, width, dilation, last
        self.reach = 1 + (width - 1) * dilation
        self.conv = Linear(width * d_model, 2 * d_model, init=uniform_fan_in())
        self.out = Linear(d_model, d_skip if last else d_skip + d_model, init=uniform_fan_in())

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, (W - 1) dilation, D): the inputs before the first token."""
        return like.new_zeros(batch_size, (self.width - 1) * self.dilation, self.d_model)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        taps_BTX, tail = dilated_taps(x_BTD, self.width, self.dilation, state)
        filter_BTD, gate_BTD = self.conv(taps_BTX).chunk(2, dim=-1)
        out_BTX = self.out(torch.tanh(filter_BTD) * torch.sigmoid(gate_BTD))
        skip_BTS = out_BTX[..., : self.d_skip]
        skips_BTS = ctx.carry[SKIPS] + skip_BTS if SKIPS in ctx.carry else skip_BTS
        ctx.carry[SKIPS] = skips_BTS
        y_BTX = skips_BTS if self.last else x_BTD + out_BTX[..., self.d_skip :]
        return y_BTX, None if state is None else tail

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the gates of the filters."""
        taps_BTX, _ = dilated_taps(x_BTD, self.width, self.dilation, None)
        _, gate_BTD = self.conv(taps_BTX).chunk(2, dim=-1)
        return {"gates.output": torch.sigmoid(gate_BTD)}
