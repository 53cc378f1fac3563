"""A linear map with a block-diagonal matrix. Legend: D features, N blocks, K = D / N features of a block."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.layers.init import Init, normal
from lmzoo.layers.layer import Layer


class BlockLinear(Layer):
    """Maps each of `n_blocks` groups of features by a matrix of its own, without a bias: (..., D) to (..., D)."""

    reach = 1
    weight: Tensor  # (N, K, K), outputs by inputs

    def __init__(self, d_model: int, n_blocks: int, init: Init = normal()) -> None:
        super().__init__()
        K = d_model // n_blocks
        self.own("weight", (n_blocks, K, K), init, "matrices")

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token."""
        return 2.0 * self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        x_NK = x.unflatten(-1, self.weight.shape[:2])
        return torch.einsum("...nk,nlk->...nl", x_NK, self.weight).flatten(-2)
