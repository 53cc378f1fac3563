"""GELU's value and slope against torch's, and the slope against its own values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmzoo.ops.cpu import gelu
from lmzoo.ops.gelu import gelu_tanh
from tests.ops.scans import assert_same, values_and_gradients


def spread(dtype: torch.dtype) -> torch.Tensor:
    """Values from where GELU is 0 to where it is x, and not contiguous."""
    x = torch.linspace(-12, 12, 4200, dtype=torch.float64).to(dtype).view(60, 70)
    return x.T


@pytest.mark.parametrize("piece", [7, 1 << 19])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 3e-6)],  # in float32 the rounding of u moves the slope by up to 2e-6
)
def test_gelu_equals_torch(dtype: torch.dtype, tolerance: float, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gelu, "PIECE", piece)
    ours = values_and_gradients(lambda x: (gelu_tanh(x),), [spread(dtype)])
    theirs = values_and_gradients(lambda x: (F.gelu(x, approximate="tanh"),), [spread(dtype)])
    assert_same(ours, theirs, tolerance)


def test_gelu_in_bfloat16_is_the_rounded_exact_value() -> None:
    """As torch's is: what lies between is computed in float32."""
    x = spread(torch.bfloat16).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, y_exact = gelu_tanh(x), F.gelu(exact, approximate="tanh")
    (slope,) = torch.autograd.grad(y.sum(), x)
    (slope_exact,) = torch.autograd.grad(y_exact.sum(), exact)
    torch.testing.assert_close(y.double(), y_exact, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(slope.double(), slope_exact, rtol=2**-8, atol=1e-6)
