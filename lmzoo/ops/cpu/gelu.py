"""GELU in its tanh form for training on a CPU, with a saved derivative.

(1 + tanh(u/2)) / 2 is the logistic function of u, which in torch is several times as fast as tanh. In training, the
forward pass also computes the derivative and saves it instead of x, so that the backward pass is one product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmzoo.ops.precision import wide

LINEAR = 2 * math.sqrt(2 / math.pi)  # gelu(x) = x logistic(u), u = LINEAR x + CUBIC x³
CUBIC = LINEAR * 0.044715
CHUNK = 1 << 19  # values at a time, so that intermediate results stay in the CPU cache


def gelu_by_sigmoid(x: Tensor) -> Tensor:
    """GELU as x times a logistic function, in float32 or wider: plain operations that a compiler can fuse."""
    exact = wide(x)
    return (exact * torch.sigmoid(exact * (LINEAR + CUBIC * exact * exact))).to(x.dtype)


def gelu_with_derivative(x: Tensor) -> Tensor:
    """GELU for training: the forward pass also computes the derivative and saves it instead of x."""
    return _GELU.apply(x)


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        y, derivative = (torch.empty(x.shape, dtype=x.dtype) for _ in range(2))
        for chunk in zip(*(each.flatten().split(CHUNK) for each in (x, y, derivative)), strict=True):
            _value_and_derivative(*chunk)
        ctx.save_for_backward(derivative)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (derivative,) = ctx.saved_tensors
        return grad * derivative


def _value_and_derivative(x: Tensor, y: Tensor, derivative: Tensor) -> None:
    """Write gelu(x) and its derivative, s + (1 - s) x s u' with s = logistic(u) and u' = LINEAR + 3 CUBIC x²."""
    x = wide(x)
    linear, one = x.new_tensor(LINEAR), x.new_ones(())
    s = torch.addcmul(linear, x, x, value=CUBIC).mul_(x).sigmoid_()
    value = s * x
    y.copy_(value)
    value.mul_(torch.addcmul(linear, x, x, value=3 * CUBIC))
    derivative.copy_(value.lerp_(one, s))
