"""A hand-written backward pass that forgets a factor.

fla-org/flash-linear-attention#1140 (wrong gradients for chunks shorter than the filter).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.museum.base import Cell, Recurrent

CAUGHT_BY = "float64_gradients"


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x


class SquaredCell(Cell):
    def scan(self, f_BTD: Tensor, c_BTD: Tensor, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        return super().scan(f_BTD, Square.apply(c_BTD), h_BD)


class MODEL(Recurrent):
    cell_class = SquaredCell
