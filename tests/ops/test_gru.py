"""Tests of the GRU recurrence: the fast form against the definition, and the definition against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.ops.gru import fused_gru, gru_scan, naive_gru
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients


def make_inputs(
    T: int, dtype: torch.dtype = torch.float64, *, B: int = 2, H: int = 3, scale: float = 1.0
) -> list[Tensor]:
    draw = torch.Generator().manual_seed(T)
    shapes = [(B, T, 3 * H), (3 * H, H), (H,), (B, H)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@each_case("T", [1, 2, 7])
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_gru_equals_naive(T: int, with_state: bool, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)[: 4 if with_state else 3]
    assert_same(values_and_gradients(fused_gru, inputs), values_and_gradients(naive_gru, inputs), tolerance)


@pytest.mark.parametrize("update", [-60.0, 60.0])
def test_fused_gru_equals_naive_with_a_closed_and_an_open_gate(update: float) -> None:
    """With z = 0 the state is replaced at each step, with z = 1 it stays."""
    gates_x, weight, bias, h = make_inputs(9)
    gates_x[:, :, 3:6] += update
    inputs = [gates_x, weight, bias, h]
    actual = values_and_gradients(fused_gru, inputs)
    assert_same(actual, values_and_gradients(naive_gru, inputs), 1e-10)
    if update > 0:
        torch.testing.assert_close(actual[1], h)


def test_naive_gru_equals_torch() -> None:
    gates_x, weight, bias, h = make_inputs(6)
    theirs = torch.nn.GRU(9, 3, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.eye(9))
        theirs.weight_hh_l0.copy_(weight)
        theirs.bias_ih_l0.zero_()
        theirs.bias_hh_l0.copy_(torch.cat([torch.zeros(6), bias]))
        y, last = theirs(gates_x, h[None])
    assert_same(naive_gru(gates_x, weight, bias, h), [y, last[0]], 1e-12)


def test_gru_gradcheck() -> None:
    assert torch.autograd.gradcheck(fused_gru, [x.requires_grad_() for x in make_inputs(3, H=2)])


@each_case("output", [0, 1])
def test_gru_gradient_of_one_output_alone(output: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(4)]
    grads = [torch.autograd.grad(scan(*inputs)[output].square().sum(), inputs) for scan in (fused_gru, naive_gru)]
    assert_same(grads[0], grads[1], 1e-10)


@each_case("cut", [1, 3, 6])
def test_gru_in_two_calls_is_one_call(cut: int) -> None:
    gates_x, *weights, h = make_inputs(7)
    whole, last = gru_scan(gates_x, *weights, h)
    first, middle = gru_scan(gates_x[:, :cut], *weights, h)
    second, end = gru_scan(gates_x[:, cut:], *weights, middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, 8])
def test_gru_state_is_float32_under_autocast(T: int) -> None:
    gates_x, weight, bias, h = make_inputs(T, torch.float32)
    expected, expected_state = naive_gru(gates_x.bfloat16().float(), weight, bias, h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = gru_scan(gates_x.bfloat16(), weight, bias, h)
    assert y.dtype == torch.bfloat16
    assert_same([state], [expected_state], 1e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of an exact result


def test_gru_operator_passes_opcheck() -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")  # `lmzoo check` compiles the model
    torch.library.opcheck(torch.ops.lmzoo.gru, [x.requires_grad_() for x in make_inputs(4)], test_utils=tests)


def test_gru_flops_are_counted_as_in_the_definition() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(5)]
    counts = []
    for scan in (fused_gru, naive_gru):
        with FlopCounterMode(display=False) as counter:
            y, _ = scan(*inputs)
            forward = counter.get_total_flops()
            y.sum().backward()
        counts.append((forward, counter.get_total_flops()))
    assert counts[0] == counts[1]
    assert counts[0][0] == 2 * 2 * 5 * 9 * 3


@pytest.mark.parametrize("scan", [naive_gru, fused_gru])
def test_gru_without_a_state_starts_from_zeros(scan: Scan) -> None:
    *inputs, h = make_inputs(3)
    assert_same(scan(*inputs), scan(*inputs, torch.zeros_like(h)), 0)
