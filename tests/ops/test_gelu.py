"""Tests of the GELU dispatcher: gradients, and extreme inputs."""

from __future__ import annotations

import torch

from lmzoo.ops.gelu import gelu_tanh


def test_gelu_gradcheck() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gelu_tanh, (x,))


def test_gelu_of_extreme_inputs_is_not_nan() -> None:
    x = torch.tensor([-1e12, -200.0, 0.0, 200.0, 1e12], requires_grad=True)
    y = gelu_tanh(x)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [0, 0, 0, 200, x[4].item()]
    assert derivative.tolist() == [0, 0, 0.5, 1, 1]
