"""Tests of GELU values and derivatives against torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.ops.cpu import gelu
from lmzoo.ops.gelu import gelu_tanh
from tests.ops.scans import assert_same, values_and_gradients


def spread(dtype: torch.dtype) -> torch.Tensor:
    """A non-contiguous tensor of values from where GELU is 0 to where it is x."""
    x = torch.linspace(-12, 12, 4200, dtype=torch.float64).to(dtype).view(60, 70)
    return x.T


@pytest.mark.parametrize("chunk", [7, 1 << 19])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 3e-6)],  # in float32 the rounding of u moves the derivative by up to 2e-6
)
def test_gelu_equals_torch(dtype: torch.dtype, tolerance: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gelu, "CHUNK", chunk)
    ours = values_and_gradients(lambda x: (gelu_tanh(x),), [spread(dtype)])
    theirs = values_and_gradients(lambda x: (F.gelu(x, approximate="tanh"),), [spread(dtype)])
    assert_same(ours, theirs, tolerance)


def test_gelu_in_bfloat16_is_the_rounded_exact_value() -> None:
    """Intermediate results are in float32, as in torch."""
    x = spread(torch.bfloat16).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, y_exact = gelu_tanh(x), F.gelu(exact, approximate="tanh")
    (derivative,) = torch.autograd.grad(y.sum(), x)
    (derivative_exact,) = torch.autograd.grad(y_exact.sum(), exact)
    torch.testing.assert_close(y.double(), y_exact, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(derivative.double(), derivative_exact, rtol=2**-8, atol=1e-6)
