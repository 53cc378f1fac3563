"""Tests the linear recurrence's fast form against its definition, and the definition against a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.ops.linear_recurrence import fused_linear_recurrence, linear_recurrence, naive_linear_recurrence
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients


def make_inputs(T: int, dtype: torch.dtype = torch.float64, *, decay: float | None = None, B: int = 2) -> list[Tensor]:
    """Returns decays in (0, 1) or all equal to `decay`, inputs, and a state."""
    draw, D = torch.Generator().manual_seed(T), 3
    a_BTD = torch.rand(B, T, D, generator=draw, dtype=torch.float64)
    a_BTD = a_BTD if decay is None else torch.full_like(a_BTD, decay)
    x_BTD, h_BD = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((B, T, D), (B, D)))
    return [x.to(dtype) for x in (a_BTD, x_BTD, h_BD)]


@pytest.mark.parametrize("form", [naive_linear_recurrence, fused_linear_recurrence])
def test_linear_recurrence_is_the_sum_of_decayed_inputs(form: Scan) -> None:
    a, x, h = make_inputs(6)
    y, last = form(a, x, h)
    for t in range(6):
        inputs = [h, *x.unbind(1)[: t + 1]]
        want = sum(a[:, s : t + 1].prod(dim=1) * inputs[s] for s in range(t + 1)) + inputs[t + 1]
        torch.testing.assert_close(y[:, t], want)
    assert torch.equal(last, y[:, -1])


@each_case("T", [1, 2, 3, 33])
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_linear_recurrence_is_the_naive_one(
    T: int, with_state: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, dtype)[: 3 if with_state else 2]
    actual = values_and_gradients(fused_linear_recurrence, inputs)
    assert_same(actual, values_and_gradients(naive_linear_recurrence, inputs), tolerance)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_fused_linear_recurrence_holds_at_extreme_decays(decay: float) -> None:
    inputs = make_inputs(9, decay=decay)
    actual = values_and_gradients(fused_linear_recurrence, inputs)
    assert_same(actual, values_and_gradients(naive_linear_recurrence, inputs), 1e-10)


def test_linear_recurrence_in_two_calls_is_one_call() -> None:
    a, x, h = make_inputs(9)
    whole, last = linear_recurrence(a, x, h)
    first, middle = linear_recurrence(a[:, :1], x[:, :1], h)
    second, end = linear_recurrence(a[:, 1:], x[:, 1:], middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, 9])
def test_linear_recurrence_computes_bfloat16_inputs_in_float32(T: int) -> None:
    a, x, h = make_inputs(T, torch.float32)
    y, last = linear_recurrence(a, x.bfloat16(), h)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(last, naive_linear_recurrence(a, x.bfloat16().float(), h)[1])


def test_linear_recurrence_compiles_in_one_graph() -> None:
    inputs = make_inputs(9)
    compiled = torch.compile(linear_recurrence, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(naive_linear_recurrence, inputs), 1e-10)
