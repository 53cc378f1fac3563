"""Tests of the LSTM recurrence: the fast form against the definition, and the definition against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.ops.lstm import fused_lstm, lstm_scan, naive_lstm
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, dtype: torch.dtype = torch.float64, B: int = 2, H: int = 3) -> list[Tensor]:
    draw = torch.Generator().manual_seed(T)
    shapes = [(B, T, 4 * H), (4 * H, H), (B, H), (B, H)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


def flat(scan: object):
    """`scan` as a function of tensors to tensors: its state unpacked on both sides."""

    def run(gates_x: Tensor, weight: Tensor, *state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = scan(gates_x, weight, state or None)
        return y, h, c

    return run


@each_case("T", [1, 2, 7])
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_lstm_equals_naive(T: int, with_state: bool, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)[: 4 if with_state else 2]
    actual = values_and_gradients(flat(fused_lstm), inputs)
    assert_same(actual, values_and_gradients(flat(naive_lstm), inputs), tolerance)


@each_case("forget", [-60.0, 60.0])
@each_case("write", [-60.0, 60.0])
def test_fused_lstm_equals_naive_with_closed_and_open_gates(write: float, forget: float) -> None:
    """Tests extreme gates: a cell that writes nothing and forgets nothing keeps its value."""
    gates_x, weight, h, c = make_inputs(7)
    gates_x[..., :3] += write
    gates_x[..., 3:6] += forget
    inputs = [gates_x, weight, h, c]
    actual = values_and_gradients(flat(fused_lstm), inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(flat(naive_lstm), inputs), 1e-10)
    if forget > 0 > write:
        torch.testing.assert_close(actual[2], c)


def test_naive_lstm_equals_torch() -> None:
    gates_x, weight, h, c = make_inputs(6)
    torchs = torch.nn.LSTM(12, 3, batch_first=True, bias=False, dtype=torch.float64)
    with torch.no_grad():
        torchs.weight_ih_l0.copy_(torch.eye(12))
        torchs.weight_hh_l0.copy_(weight)
        y, (h_1, c_1) = torchs(gates_x, (h[None], c[None]))
    assert_same(flat(naive_lstm)(gates_x, weight, h, c), [y, h_1[0], c_1[0]], 1e-12)


def test_lstm_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(3, B=2, H=2)]
    assert torch.autograd.gradcheck(flat(fused_lstm), inputs)


@each_case("output", [0, 1, 2])
def test_lstm_gradient_of_one_output_alone(output: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(4)]
    grads = [
        torch.autograd.grad(flat(scan)(*inputs)[output].square().sum(), inputs) for scan in (fused_lstm, naive_lstm)
    ]
    assert_same(grads[0], grads[1], 1e-10)


def test_lstm_of_two_parts_equals_the_whole() -> None:
    gates_x, weight, h, c = make_inputs(7)
    whole, last = lstm_scan(gates_x, weight, (h, c))
    for cut in (1, 3, 6):
        first, state = lstm_scan(gates_x[:, :cut], weight, (h, c))
        second, end = lstm_scan(gates_x[:, cut:], weight, state)
        assert_same([torch.cat([first, second], dim=1), *end], [whole, *last], 1e-12)


@each_case("T", [1, 8])
def test_lstm_state_is_float32_under_autocast(T: int) -> None:
    gates_x, weight, h, c = make_inputs(T, torch.float32)
    expected, expected_state = naive_lstm(gates_x.bfloat16().float(), weight, (h, c))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = lstm_scan(gates_x.bfloat16(), weight, (h, c))
    assert y.dtype == torch.bfloat16
    assert_same(state, expected_state, 1e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of an exact result


def test_lstm_operator_passes_opcheck() -> None:
    torch.library.opcheck(torch.ops.lmzoo.lstm, [x.requires_grad_() for x in make_inputs(4)])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_lstm_compiles_in_one_graph(backend: str) -> None:
    inputs = make_inputs(5)
    compiled = torch.compile(flat(lstm_scan), fullgraph=True, backend=backend)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(flat(naive_lstm), inputs), 1e-10)


def test_lstm_flops_are_counted_as_in_the_definition() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(5)]
    counts = []
    for scan in (fused_lstm, naive_lstm):
        with FlopCounterMode(display=False) as counter:
            y, _ = scan(inputs[0], inputs[1], (inputs[2], inputs[3]))
            forward = counter.get_total_flops()
            y.sum().backward()
        counts.append((forward, counter.get_total_flops()))
    assert counts[0] == counts[1]
    assert counts[0][0] == 2 * 2 * 5 * 12 * 3


def test_lstm_is_bitwise_the_same_under_autocast() -> None:
    """Values and gradients of float32 inputs are bitwise equal with and without autocast."""
    inputs = make_inputs(5, torch.float32)
    expected = values_and_gradients(flat(fused_lstm), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = values_and_gradients(flat(fused_lstm), inputs)
    assert_same(actual, expected, 0)


@pytest.mark.parametrize("scan", [naive_lstm, fused_lstm])
def test_lstm_without_a_state_starts_from_zeros(scan: object) -> None:
    gates_x, weight, h, c = make_inputs(3, H=6)
    zeros = (torch.zeros_like(h), torch.zeros_like(c))
    assert_same(flat(scan)(gates_x, weight), flat(scan)(gates_x, weight, *zeros), 0)


@each_case("T", [1, 4])
def test_lstm_uses_low_precision_weights_in_float32(T: int) -> None:
    gates_x, weight, h, c = make_inputs(T, torch.bfloat16)
    y, state = lstm_scan(gates_x, weight, (h, c))
    expected, expected_state = naive_lstm(gates_x.float(), weight.float(), (h.float(), c.float()))
    assert y.dtype == torch.bfloat16
    assert_same(state, expected_state, 1e-6)
    assert_same([y.float()], [expected], 8e-3)
