"""Tests of the scan of logarithms: the fast form against the definition, and its rounding errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.linear_recurrence import SHORTEST_FUSED as C
from lmzoo.ops.log_scan import fused_log_scan, log_scan, naive_log_scan
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (1, 2, C - 1, C, C + 1, 2 * C, 2 * C + 3)


def make_inputs(
    T: int, dtype: torch.dtype = torch.float64, *, odds: float = 0.0, B: int = 2, D: int = 3
) -> list[Tensor]:
    """Returns log a and log b as in minGRU, with gates around sigmoid(odds), and a positive state."""
    draw = torch.Generator().manual_seed(T)
    gate, v, h = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((B, T, D), (B, T, D), (B, D)))
    return [x.to(dtype) for x in (F.logsigmoid(-gate - odds), F.logsigmoid(gate + odds) + v, h.exp())]


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_log_scan_is_the_naive_one(T: int, with_state: bool, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)[: 3 if with_state else 2]
    actual = values_and_gradients(fused_log_scan, inputs)
    assert_same(actual, values_and_gradients(naive_log_scan, inputs), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("odds", [-200.0, -20.0, 20.0, 200.0])
def test_fused_log_scan_holds_at_extreme_decays(odds: float, dtype: torch.dtype, tolerance: float) -> None:
    """a is 1 up to rounding and b is 0, or the other way round; also with an empty state, whose logarithm is -inf."""
    log_a, log_b, h = make_inputs(2 * C + 3, dtype, odds=odds)
    for state in (h, torch.zeros_like(h)):
        actual = values_and_gradients(fused_log_scan, [log_a, log_b, state])
        assert_same(actual, values_and_gradients(naive_log_scan, [log_a, log_b, state]), tolerance)
        assert all(x.isfinite().all() for x in actual)


@pytest.mark.parametrize("scan", [naive_log_scan, fused_log_scan])
def test_log_scan_with_decays_of_one_and_zero(scan: Scan) -> None:
    zeros, nothing = torch.zeros(1, 9, 1), torch.full((1, 9, 1), -torch.inf)
    assert scan(zeros, zeros)[0].flatten().tolist() == pytest.approx(range(1, 10), rel=1e-6)
    assert (scan(nothing, zeros, torch.ones(1, 1))[0] == 1).all()
    assert (scan(zeros, nothing, torch.full((1, 1), 3.0))[0] - 3).abs().max() < 1e-6


@pytest.mark.parametrize("odds", [-6.0, 0.0, 30.0])
def test_fused_log_scan_keeps_its_error_small_over_4096_tokens(odds: float) -> None:
    """The form of the paper, which subtracts sums over the whole sequence, is more than 100 times worse."""
    T = 4096
    log_a, log_b, _ = make_inputs(T, torch.float32, odds=odds)
    exact, _ = naive_log_scan(log_a.double(), log_b.double())
    error = ((fused_log_scan(log_a, log_b)[0] - exact).abs() / exact).max().item()
    assert error < 3e-6
    sums = log_a.cumsum(1)
    papers = (sums + (log_b - sums).logcumsumexp(1)).exp()
    if odds >= 0:
        assert ((papers - exact).abs() / exact).max() > 100 * error


@each_case("T", [1, C + 1])
def test_log_scan_computes_bfloat16_inputs_in_float32(T: int) -> None:
    log_a, log_b, state = make_inputs(T, torch.float32)
    low = [x.bfloat16() for x in (log_a, log_b)]
    expected = naive_log_scan(*(x.float() for x in low), state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = log_scan(*low, state)
    assert [x.dtype for x in actual] == [torch.float32] * 2
    assert_same(actual, expected, 1e-5)


def test_log_scan_gradcheck() -> None:
    assert torch.autograd.gradcheck(fused_log_scan, [x.requires_grad_() for x in make_inputs(C + 2, B=1, D=2)])


@each_case("output", [0, 1])
def test_log_scan_gradient_of_one_output_alone(output: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(C + 2)]
    scans = (fused_log_scan, naive_log_scan)
    grads = [torch.autograd.grad(scan(*inputs)[output].square().sum(), inputs) for scan in scans]
    assert_same(grads[0], grads[1], 1e-10)


@each_case("cut", [1, C, 2 * C + 2])
def test_log_scan_in_two_calls_is_one_call(cut: int) -> None:
    log_a, log_b, h = make_inputs(2 * C + 3)
    whole, last = log_scan(log_a, log_b, h)
    first, middle = log_scan(log_a[:, :cut], log_b[:, :cut], h)
    second, end = log_scan(log_a[:, cut:], log_b[:, cut:], middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, C + 1])
def test_log_scan_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        log_scan(*make_inputs(T))
    assert counter.get_total_flops() == 2 * 2 * T * 3
