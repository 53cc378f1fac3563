"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236): the softmax is replaced by a product of features.

Legend: B batch, T time, D model width, H heads, K width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.offers import one_hot_values
from lmzoo.layers.projections import Projection, output, split_rows
from lmzoo.ops.gated_linear_attention import gated_linear_attention
from lmzoo.ops.precision import wide, wide_dtype


class LinearAttention(Layer):
    """Attention with the weights phi(q) . phi(k), divided by their sum, where phi(x) = elu(x) + 1 is positive.

    The state is (B, H, K, K + 1), float32 or wider: the sum of phi(k) v^T, and as last column the sum of phi(k). The
    column is the memory of a value that is always 1, so one recurrence computes numerator and denominator.
    """

    reach = None
    state_growth = "constant"

    def __init__(self, d_model: int, n_heads: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.eps = n_heads, d_model // n_heads, eps
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns a memory (B, H, K, K + 1) of zeros."""
        shape = (batch_size, self.n_heads, self.head_dim, self.head_dim + 1)
        return like.new_zeros(shape, dtype=wide_dtype(like.dtype))

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token: a multiply-add per entry of the memory for each of a write and a read."""
        return 4.0 * self.n_heads * self.head_dim * (self.head_dim + 1)

    def transferable(self) -> dict[str, Projection]:
        heads = (self.n_heads, self.head_dim)
        return {**split_rows(self.qkv, q=heads, k=heads, v=heads), "out": output(self.out, *heads)}

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        q_BTHK, k_BTHK, v_BTHK = self.project(x_BTD)
        y_BTHK, memory = self.attend(q_BTHK, k_BTHK, v_BTHK, state)
        return self.out(y_BTHK.flatten(2).to(x_BTD.dtype)), None if state is None else memory

    def project(self, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Returns queries, keys and values, (B, T, H, K) each, in float32 or wider."""
        return wide(self.qkv(x_BTD)).unflatten(-1, (3, self.n_heads, self.head_dim)).unbind(2)

    def attend(self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the weighted means of the values, (B, T, H, V), and the next memory."""
        v_and_one = F.pad(v_BTHV, (0, 1), value=1.0)
        sums, memory = gated_linear_attention(elu_plus_one(q_BTHK), elu_plus_one(k_BTHK), v_and_one, None, state)
        return sums[..., :-1] / (sums[..., -1:] + self.eps), memory

    def offers(self, x_BTD: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Returns the attention weights: what `attend` returns for one-hot values."""
        q_BTHK, k_BTHK, _ = self.project(x_BTD)
        return {"attention.weights": self.attend(q_BTHK, k_BTHK, one_hot_values(k_BTHK), None)[0]}


def elu_plus_one(x: Tensor) -> Tensor:
    """Returns x + 1 for positive x, else exp(x), which elu(x) + 1 rounds to zero for x below -17."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
