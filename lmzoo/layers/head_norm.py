"""Normalization of each head on its own. Legend: B batch, T time, H heads, K head width, D = H K."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.ops.precision import wide


class HeadNorm(Layer):
    """Mean 0 and variance 1 for each head, then a weight and optionally a bias for each feature: group normalization.

    Maps (B, T, H, K) to (B, T, D) in float32 or wider.
    """

    reach = 1
    weight: Tensor  # (D,)
    bias: Tensor | None  # (D,)

    def __init__(self, d_model: int, eps: float = 1e-5, *, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.own("weight", (d_model,), constant(1.0))
        if bias:
            self.own("bias", (d_model,), constant(0.0))
        else:
            self.register_parameter("bias", None)

    def forward(self, x_BTHK: Tensor) -> Tensor:
        y_BTD = F.layer_norm(wide(x_BTHK), x_BTHK.shape[-1:], eps=self.eps).flatten(2) * self.weight
        return y_BTD if self.bias is None else y_BTD + self.bias


class HeadRMSNorm(Layer):
    """RMS norm over each head, with a weight for every feature of every head."""

    reach = 1
    weight: Tensor  # (H, K)

    def __init__(self, n_heads: int, head_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.own("weight", (n_heads, head_dim), constant(1.0), "vector")

    def forward(self, x_BTHK: Tensor) -> Tensor:
        """Maps (..., H, K) to (..., H, K)."""
        return F.rms_norm(x_BTHK, x_BTHK.shape[-1:], eps=self.eps) * self.weight.to(x_BTHK.dtype)


class HeadLayerNorm(Layer):
    """Mean 0 and variance 1 for each head, with a weight for every feature of every head (Cohere, StableLM 2)."""

    reach = 1
    weight: Tensor  # (H, K)

    def __init__(self, n_heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.own("weight", (n_heads, head_dim), constant(1.0), "vector")

    def forward(self, x_BTHK: Tensor) -> Tensor:
        """Maps (..., H, K) to (..., H, K)."""
        return F.layer_norm(x_BTHK, x_BTHK.shape[-1:], eps=self.eps) * self.weight.to(x_BTHK.dtype)
