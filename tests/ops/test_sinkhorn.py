"""Sinkhorn iterations by logarithms against the definition, and at the extremes."""

from __future__ import annotations

import pytest
import torch

from lmzoo.ops.sinkhorn import naive_sinkhorn, sinkhorn
from tests.ops.scans import assert_same, values_and_gradients


@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_sinkhorn_is_the_naive_one(iterations: int, dtype: torch.dtype, tolerance: float) -> None:
    logits = 2 * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    actual, expected = (
        values_and_gradients(lambda x, f=f: [f(x, iterations)], [logits.to(dtype)]) for f in (sinkhorn, naive_sinkhorn)
    )
    assert_same(actual, expected, tolerance)


def test_sinkhorn_makes_rows_and_columns_sum_to_one() -> None:
    m = sinkhorn(torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 30)
    torch.testing.assert_close(m.sum(-1), torch.ones(5, 4, dtype=torch.float64))
    torch.testing.assert_close(m.sum(-2), torch.ones(5, 4, dtype=torch.float64))


def test_sinkhorn_stays_finite_where_the_definition_overflows() -> None:
    logits = torch.tensor([[1e4, 0.0], [0.0, -1e4]], requires_grad=True)
    m = sinkhorn(logits, 20)
    m.square().sum().backward()
    assert m.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert sinkhorn(torch.zeros(1, 1), 5).item() == 1
