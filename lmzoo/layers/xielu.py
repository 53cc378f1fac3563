"""The activation xIELU, with learned slopes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmzoo.layers.init import constant
from lmzoo.layers.layer import Layer


class XIELU(Layer):
    """xIELU (Huang & Schlag 2024, arXiv 2411.13010): squares of positive numbers, and exponentials of negative ones.

    Its derivative is linear for x > 0, with the slope `a`, and tends to `beta - b` for small x. `a` and `b` are
    learned: softplus keeps `a` above 0, and `b` above `beta`. `beta` and `eps` are constants that a checkpoint holds.
    """

    alpha_p: Tensor
    alpha_n: Tensor
    beta: Tensor
    eps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.own("alpha_p", (1,), constant(math.log(math.expm1(0.8))))
        self.own("alpha_n", (1,), constant(math.log(math.expm1(0.8 - 0.5))))
        self.own("beta", (1,), constant(0.5), "constant")
        self.own("eps", (1,), constant(-1e-6), "constant")

    def forward(self, x: Tensor) -> Tensor:
        """Maps each number of x."""
        parameters = (self.alpha_p, self.alpha_n, self.beta, self.eps)
        alpha_p, alpha_n, beta, eps = (parameter.to(x.dtype) for parameter in parameters)
        a, b = torch.nn.functional.softplus(alpha_p), beta + torch.nn.functional.softplus(alpha_n)
        return beta * x + torch.where(x > 0, a * x * x, b * (torch.expm1(torch.minimum(x, eps)) - x))
