"""A linear map with a low-rank map beside it. Legend: R rank, P parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear


class Adapted(Layer):
    """`base(x) + up(down(x))`, with R features in between (Hu et al. 2021, LoRA, arXiv 2106.09685).

    `base` may be shared by several depths, and each of them has a low-rank map of its own. With `parts`, the outputs of
    `base` consist of that number of equal parts, such as query, key and value, and each part has its own `up` and
    `down`. `up` starts at zero.
    """

    reach = 1
    up: Tensor  # (outputs, R)

    def __init__(self, base: nn.Linear, rank: int, *, parts: int = 1) -> None:
        super().__init__()
        self.base, self.parts = base, parts
        self.down = Linear(base.in_features, parts * rank, bias=False)
        self.own("up", (base.out_features, rank), constant(0.0), "matrix")

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token in `up`."""
        return 2.0 * self.up.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., inputs) to (..., outputs)."""
        low_PR = self.down(x).unflatten(-1, (self.parts, -1))
        added = torch.einsum("...pr,por->...po", low_PR, self.up.unflatten(0, (self.parts, -1)))
        return self.base(x) + added.flatten(-2)
