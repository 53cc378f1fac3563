"""Tests the scores with decayed keys against their definition, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops.decayed_scores import decayed_scores, naive_decayed_scores
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(C: int, A: int, dtype: torch.dtype = torch.float64, *, kind: str = "weak") -> list[Tensor]:
    """Returns two sets of queries, three of keys, and the logarithms of decays, for five chunks."""
    draw = torch.Generator().manual_seed(C)
    q, k, x = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((2, 5, C, 4), (3, 5, C, 4), (5, C, A))
    )
    log_decay = {"weak": -0.1, "strong": -50.0}.get(kind, -1.0) * x.abs()
    if kind == "infinite":
        log_decay[:, 1::3] = -torch.inf
    return [t.to(dtype) for t in (q, k, log_decay)]


@pytest.mark.parametrize("kind", ["weak", "strong", "infinite"])
@pytest.mark.parametrize("A", [1, 4])
@pytest.mark.parametrize("C", [1, 2, 4, 8, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_decayed_scores_are_the_definition(C: int, A: int, kind: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(C, A, dtype, kind=kind)
    actual = values_and_gradients(decayed_scores, inputs)
    assert_same(actual, values_and_gradients(naive_decayed_scores, inputs), tolerance)


@pytest.mark.parametrize("output", [0, 1, 2])
def test_decayed_scores_gradient_of_one_output_alone(output: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(8, 4)]
    grads = [
        torch.autograd.grad(form(*inputs)[output].square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for form in (decayed_scores, naive_decayed_scores)
    ]
    assert_same(grads[0], grads[1], 1e-12)


@pytest.mark.parametrize("A", [1, 2])
def test_decayed_scores_gradcheck(A: int) -> None:
    q, k, log_decay = make_inputs(4, A)
    inputs = [x.requires_grad_() for x in (q[:, :2, :, :2], k[:, :2, :, :2], log_decay[:2])]
    assert torch.autograd.gradcheck(decayed_scores, inputs)
