"""The short causal convolution used by many recurrent mixers. Legend: B batch, T time, D width, W filter length."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.init import uniform, uniform_fan_in
from lmzoo.layers.layer import Layer
from lmzoo.ops.causal_conv1d import causal_conv1d


class ShortConv(Layer):
    """`silu(conv(x))` with one filter of length `width` for each feature; the last tap multiplies the present token.

    Its state is the last `width - 1` inputs. Filters get no weight decay: their role is "vector".
    """

    state_growth = "constant"
    weight: Tensor  # (D, W)
    bias: Tensor | None  # (D,)

    def __init__(self, d_model: int, width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.reach = width
        self.own("weight", (d_model, width), uniform_fan_in(), "vector")
        if bias:
            self.own("bias", (d_model,), uniform(width**-0.5))
        else:
            self.register_parameter("bias", None)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns zeros (B, W - 1, D): the inputs before the first token."""
        d_model, width = self.weight.shape
        return like.new_zeros(batch_size, width - 1, d_model)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add for each tap."""
        return 2.0 * self.weight.numel()

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        y_BTD, tail = causal_conv1d(x_BTD, self.weight, self.bias, state)
        return F.silu(y_BTD), None if state is None else tail
