"""Comparison of results: differences, their positions, and the line that computes in float32."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, subject
from lmzoo.conformance.measure import (
    backward,
    difference,
    first_position,
    float32_hint,
    float32_line,
    require_equal,
    require_exact,
    require_near,
    require_same_bits,
)


def test_difference_is_relative_to_the_largest_value_and_infinite_where_not_finite() -> None:
    expected = torch.tensor([0.0, 8.0])
    assert difference(expected + 2, expected) == pytest.approx(0.25)
    assert difference(torch.tensor([0.0, 6.0]), expected) == pytest.approx(0.25)
    assert difference(expected / 10 + 0.5, expected / 10) == pytest.approx(0.5)  # the scale is at least 1
    assert difference(torch.tensor([0.0, math.nan]), expected) == math.inf
    assert difference(expected[:0], expected[:0]) == 0
    with pytest.raises(Fault, match=r"shape \(1,\) instead of \(2,\)"):
        difference(expected[:1], expected)


def test_first_position_is_the_earliest_position_and_its_first_row() -> None:
    expected_BTV = torch.zeros(3, 4, 2)
    actual_BTV = expected_BTV.clone()
    actual_BTV[1, 2, 0] = actual_BTV[2, 2, 1] = actual_BTV[0, 3, 0] = 1e-3
    assert first_position(actual_BTV, expected_BTV) == "position 2 of row 1"
    actual_BTV[0, 3, 0] = math.nan
    assert first_position(actual_BTV, expected_BTV, 1e-2) == "position 3 of row 0"


def test_require_equal_says_what_is_off_and_where_to_look() -> None:
    one = torch.ones(1)
    assert require_equal(one + 1e-6, one, "a", "b", 1e-5) == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(Fault, match=r"a is off by 0.5 of the largest value \(allowed 1e-05\); look at b"):
        require_equal(one + 0.5, one, "a", "b", 1e-5)
    with pytest.raises(Fault, match=r"a is not finite"):
        require_equal(one / 0, one, "a", "b", 1e-5)


def test_require_exact_allows_float32_rounding_to_a_state_that_keeps_float32() -> None:
    checked = subject("bigram")
    model, idx, expected = checked.model().double(), checked.tokens(2, 5), torch.ones(2, dtype=torch.float64)
    position, memory = torch.zeros(2, dtype=torch.long), torch.zeros(2, 3)
    assert require_exact(expected + 1e-6, expected, "a", "b", model, idx, [position, memory]) == pytest.approx(1e-6)
    for state in (None, [position], [position, memory.double()]):
        with pytest.raises(Fault, match=r"a is off by 1e-06 of the largest value \(allowed 1e-09 in float64"):
            require_exact(expected + 1e-6, expected, "a", "b", model, idx, state)


def test_require_near_finds_one_value_that_is_not_finite() -> None:
    expected_BTV = torch.ones(1, 8, 3)
    actual_BTV = expected_BTV.clone()
    assert require_near(actual_BTV, expected_BTV, "a", "b") == 0
    actual_BTV[0, 0, 0] = math.inf
    with pytest.raises(Fault, match="a is not finite; look at b"):
        require_near(actual_BTV, expected_BTV, "a", "b")


def test_require_same_bits_allows_no_difference() -> None:
    one = torch.ones(1)
    require_same_bits(one, one.clone(), "a", "b")
    with pytest.raises(Fault, match="a is off by 6e-08, and must be bitwise equal; look at b"):
        require_same_bits(one * (1 - 2**-24), one, "a", "b")


def test_backward_runs_unless_there_is_nothing_to_differentiate() -> None:
    x = torch.ones(3, requires_grad=True)
    backward(x.sum())
    assert torch.equal(x.grad, torch.ones(3))  # type: ignore[arg-type]
    backward(torch.ones(()))


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.table = torch.arange(4.0, dtype=torch.float64)

    def forward(self, x: Tensor, *, cast: bool) -> Tensor:
        x = x * self.table.float().to(x.dtype) @ self.weight.T  # a rounded constant is the same in every call
        return torch.softmax(x.float(), -1).to(x.dtype) if cast else torch.softmax(x, -1)


def test_float32_hint_names_the_line_that_rounds_an_activation() -> None:
    router, x = Router().double(), torch.randn(2, 4, dtype=torch.float64)
    line = Router.forward.__code__.co_firstlineno + 2
    with torch.no_grad():
        hint = float32_hint(lambda: router(x, cast=True), 1e-7)
    assert hint == (
        f"; something is computed in float32 there, at test_measure.py:{line} (`.float()`): "
        "use `lmzoo.ops.precision.wide`"
    )
    assert float32_hint(lambda: router(x, cast=False), 1e-7) == ""
    assert float32_hint(lambda: router(x, cast=True), 1e-2) == ""  # too large to be rounding


@pytest.mark.parametrize(("shape", "counts"), [((2, 3), True), ((3,), True), ((), False)])
def test_float32_line_counts_vectors_but_no_single_number(shape: tuple[int, ...], counts: bool) -> None:
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    assert bool(float32_line(lambda: x.float())) == counts
