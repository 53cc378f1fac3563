"""Helpers to compare a sequence algorithm with its definition: values, and the gradients of every input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Scan = Callable[..., tuple[Tensor, Tensor]]


def values_and_gradients(scan: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Returns all outputs of `scan`, and the gradients of a function of all of them for every input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = scan(*leaves)
    total = sum((out * _weights(out)).sum() for out in outputs)
    assert isinstance(total, Tensor)
    return [*outputs, *torch.autograd.grad(total, leaves)]


def assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Assert that tensors are equal up to `tolerance` times their largest value."""
    assert len(actual) == len(expected)
    for got, want in zip(actual, expected, strict=True):
        assert got.dtype == want.dtype
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance * scale)


def _weights(x: Tensor) -> Tensor:
    """Fixed weights, all different, so that exchanged elements change the result."""
    return torch.cos(torch.arange(x.numel(), dtype=x.dtype, device=x.device) * 0.7 + 0.3).view(x.shape)
