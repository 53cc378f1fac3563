"""Tests the scores with decayed keys against their definition, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops.decayed_scores import decayed_scores, naive_decayed_scores
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(C: int, dtype: torch.dtype, *, kind: str, sets: tuple[int, ...] = ()) -> list[Tensor]:
    """Returns sets of queries, keys, and the logarithms of decays, for five chunks of three heads."""
    draw = torch.Generator().manual_seed(C)
    q, k, x = (
        torch.randn(*shape, generator=draw, dtype=torch.float64)
        for shape in ((*sets, 5, 3, C, 4), (5, 3, C, 4), (5, 3, C, 1))
    )
    log_decay = {"weak": -0.1, "strong": -50.0}.get(kind, -1.0) * x.abs()
    if kind == "infinite":
        log_decay[..., 1::3, :] = -torch.inf
    return [t.to(dtype) for t in (q, k, log_decay)]


@each_case("kind", ["weak", "strong", "infinite"])
@each_case("C", [1, 2, 3, 8, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_decayed_scores_are_the_definition(C: int, kind: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(C, dtype, kind=kind)
    actual = values_and_gradients(decayed_scores, inputs)
    assert_same(actual, values_and_gradients(naive_decayed_scores, inputs), tolerance)


def test_decayed_scores_of_two_sets_of_queries() -> None:
    inputs = make_inputs(8, torch.float64, kind="weak", sets=(2,))
    actual = values_and_gradients(decayed_scores, inputs)
    assert actual[0].shape == (2, 5, 3, 8, 8)
    assert_same(actual, values_and_gradients(naive_decayed_scores, inputs), 1e-12)
