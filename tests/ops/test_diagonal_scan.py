"""Tests the diagonal scan's fast form against its definition, and the definition against a closed form in torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.diagonal_scan import (
    SHORTEST_DOUBLING,
    diagonal_scan,
    doubling_diagonal_scan,
    naive_diagonal_scan,
    powers,
    times,
)
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (1, 2, SHORTEST_DOUBLING - 1, SHORTEST_DOUBLING, 7, 8, 9, 33)
BOTH = pytest.mark.parametrize("form", [naive_diagonal_scan, doubling_diagonal_scan])


def make_inputs(T: int, dtype: torch.dtype = torch.float64, *, size: float | None = None) -> list[Tensor]:
    """Returns factors with absolute values in (0, 1), or all `size`, inputs, and a state."""
    draw, N = torch.Generator().manual_seed(T), 3
    size_N, turn_N = torch.rand(2, N, generator=draw, dtype=torch.float64).unbind(0)
    size_N = size_N if size is None else torch.full_like(size_N, size)
    a_N2 = torch.view_as_real(torch.polar(size_N, 2 * math.pi * turn_N))
    x_BTN2, h_BN2 = (torch.randn(2, *shape, generator=draw, dtype=torch.float64) for shape in ((T, N, 2), (N, 2)))
    return [x.to(dtype) for x in (a_N2, x_BTN2, h_BN2)]


@BOTH
def test_diagonal_scan_is_the_sum_of_inputs_with_powers(form: Scan) -> None:
    a, x, h = make_inputs(6)
    y, last = form(a, x, h)
    a, inputs = torch.view_as_complex(a), torch.view_as_complex(torch.cat([h[:, None], x], dim=1))
    for t in range(1, 7):
        want = sum(a ** (t - s) * inputs[:, s] for s in range(t + 1))
        torch.testing.assert_close(torch.view_as_complex(y[:, t - 1].contiguous()), want)
    assert torch.equal(last, y[:, -1])


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_doubling_diagonal_scan_is_the_naive_one(
    T: int, with_state: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, dtype)[: 3 if with_state else 2]
    actual = values_and_gradients(doubling_diagonal_scan, inputs)
    assert_same(actual, values_and_gradients(naive_diagonal_scan, inputs), tolerance)


@each_case("size", [0.0, 1e-30, 1.0])
def test_doubling_diagonal_scan_holds_at_extreme_factors(size: float) -> None:
    inputs = make_inputs(35, size=size)
    actual = values_and_gradients(doubling_diagonal_scan, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(naive_diagonal_scan, inputs), 1e-10)


def test_doubling_diagonal_scan_does_not_read_later_tokens() -> None:
    a, x, h = make_inputs(33, torch.float32)
    whole, _ = doubling_diagonal_scan(a, x, h)
    for T in (5, 16, 32):
        assert torch.equal(doubling_diagonal_scan(a, x[:, :T], h)[0], whole[:, :T])


@each_case("cut", [1, 3, 8])
def test_diagonal_scan_in_two_calls_is_one_call(cut: int) -> None:
    a, x, h = make_inputs(9)
    whole, last = diagonal_scan(a, x, h)
    first, middle = diagonal_scan(a, x[:, :cut], h)
    second, end = diagonal_scan(a, x[:, cut:], middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, 9])
def test_diagonal_scan_computes_bfloat16_inputs_in_float32(T: int) -> None:
    a, x, h = make_inputs(T, torch.float32)
    expected, last = naive_diagonal_scan(a, x.bfloat16().float(), h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = diagonal_scan(a, x.bfloat16(), h)
    assert (y.dtype, state.dtype) == (torch.float32, torch.float32)
    assert_same([y, state], [expected, last], 1e-5)


def test_diagonal_scan_counts_four_multiply_adds_for_each_state() -> None:
    with FlopCounter() as counter:
        diagonal_scan(*make_inputs(9))
    assert counter.get_total_flops() == 8 * 2 * 9 * 3


def test_times_and_powers_are_those_of_complex_numbers() -> None:
    a, _, h = make_inputs(5)
    assert_same([times(a, h)], [torch.view_as_real(torch.view_as_complex(a) * torch.view_as_complex(h))], 1e-15)
    for n in (1, 2, 3, 8, 9):
        want = torch.view_as_complex(a) ** torch.arange(n + 1)[:, None]
        assert_same([powers(a, n)], [torch.view_as_real(want)], 1e-14)
