"""The mixer of LFM2: a short causal convolution between two gates.

Legend: B batch, T time, D model width, W length of the filters.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.ops.causal_conv1d import causal_conv1d


class DoubleGatedConv(Layer):
    """`out(c * conv(b * u))` with `b, c, u = in_proj(x)` (Liquid AI 2025, LFM2, arXiv 2511.23404).

    The gates are plain products, without an activation. The state is the last `width - 1` inputs of the convolution,
    which has one filter for each feature.
    """

    state_growth = "constant"
    filters: Tensor  # (D, W); the last tap multiplies the present token

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.reach = width
        self.in_proj = Linear(d_model, 3 * d_model, bias=False)
        self.own("filters", (d_model, width), uniform_fan_in(), "vector")
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, W - 1, D): the inputs before the first token."""
        d_model, width = self.filters.shape
        return like.new_zeros(batch_size, width - 1, d_model)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add for each tap."""
        return 2.0 * self.filters.numel()

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        b_BTD, c_BTD, u_BTD = self.in_proj(x_BTD).chunk(3, dim=-1)
        y_BTD, tail = causal_conv1d(b_BTD * u_BTD, self.filters, None, state)
        return self.out(c_BTD * y_BTD), None if state is None else tail

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the factors of the convolution's input and of its output."""
        b_BTD, c_BTD, _ = self.in_proj(x_BTD).chunk(3, dim=-1)
        return {"gates.write": b_BTD, "gates.output": c_BTD}
