"""Tests of the chunked selective scan against its definition: values, gradients, dtypes, memory, compilation."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.selective_scan import (
    CHUNK_LENGTH,
    SHORTEST_CHUNKED,
    chunked_selective_scan,
    naive_selective_scan,
    selective_scan,
)
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (1, CHUNK_LENGTH - 1, CHUNK_LENGTH, CHUNK_LENGTH + 1, 2 * CHUNK_LENGTH + 3)


def make_inputs(T: int, dtype: torch.dtype = torch.float64, B: int = 2, D: int = 5, N: int = 3) -> list[Tensor]:
    draw = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    delta, A = torch.nn.functional.softplus(normal(B, T, D)), -torch.exp(normal(D, N))
    inputs = [normal(B, T, D), delta, A, normal(B, T, N), normal(B, T, N), normal(D), normal(B, D, N)]
    return [x.to(dtype) for x in inputs]


def test_naive_selective_scan_by_hand() -> None:
    """Two steps of one channel with one state, worked out from the equation."""
    u, delta = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[0.5], [1.0]]])
    A, B, C = torch.tensor([[-1.0]]), torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [4.0]]])
    h_1 = torch.tensor(-0.5).exp() * 10 + 0.5 * 2 * 1
    h_2 = torch.tensor(-1.0).exp() * h_1 + 1.0 * 3 * 2
    y, h = naive_selective_scan(u, delta, A, B, C, torch.tensor([7.0]), torch.tensor([[[10.0]]]))
    torch.testing.assert_close(y.flatten(), torch.stack([3 * h_1 + 14, 4 * h_2 + 21]))
    torch.testing.assert_close(h.flatten()[0], h_2)


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@each_case("signed", [False, True])
def test_chunked_selective_scan_equals_naive(
    T: int, with_state: bool, dtype: torch.dtype, tolerance: float, signed: bool
) -> None:
    inputs = make_inputs(T, dtype)
    inputs = inputs if with_state else inputs[:-1]
    actual = values_and_gradients(partial(chunked_selective_scan, signed=signed), inputs)
    assert_same(actual, values_and_gradients(partial(naive_selective_scan, signed=signed), inputs), tolerance)


def test_naive_selective_scan_with_signed_decays_by_hand() -> None:
    """A decay of exp(-20), which is almost 0, becomes -1: the state changes its sign."""
    u, one = torch.tensor([[[0.0], [0.0]]]), torch.ones(1, 2, 1)
    y, h = naive_selective_scan(u, 20 * one, -torch.ones(1, 1), one, one, None, torch.tensor([[[3.0]]]), signed=True)
    torch.testing.assert_close(y.flatten(), torch.tensor([-3.0, 3.0]))
    torch.testing.assert_close(h.flatten(), torch.tensor([3.0]))


@each_case("signed", [False, True])
def test_selective_scan_gradcheck(signed: bool) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(CHUNK_LENGTH + 2, B=1, D=2, N=2)]
    assert torch.autograd.gradcheck(partial(chunked_selective_scan, signed=signed), inputs)


@each_case("T", [3, CHUNK_LENGTH + 1])
@each_case("output", [0, 1])
def test_selective_scan_gradient_of_one_output_alone(output: int, T: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(T)]
    grads = [
        torch.autograd.grad(scan(*inputs)[output].square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for scan in (chunked_selective_scan, naive_selective_scan)
    ]
    assert_same(grads[0], grads[1], 1e-10)


def test_selective_scan_of_two_parts_equals_the_whole() -> None:
    u, delta, A, B, C, D, h = make_inputs(CHUNK_LENGTH + 4)
    whole, last = selective_scan(u, delta, A, B, C, D, h)
    for cut in (1, CHUNK_LENGTH, CHUNK_LENGTH + 3):
        first, middle = selective_scan(u[:, :cut], delta[:, :cut], A, B[:, :cut], C[:, :cut], D, h)
        second, end = selective_scan(u[:, cut:], delta[:, cut:], A, B[:, cut:], C[:, cut:], D, middle)
        assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, 20])
def test_selective_scan_state_is_float32_under_autocast(T: int) -> None:
    u, delta, A, B, C, D, h = make_inputs(T, torch.float32)
    low = [x.bfloat16() for x in (u, delta, B, C)]
    expected = naive_selective_scan(low[0].float(), low[1].float(), A, low[2].float(), low[3].float(), D, h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, last = selective_scan(low[0], low[1], A, low[2], low[3], D, h)
    assert y.dtype == torch.bfloat16
    assert last.dtype == torch.float32
    assert_same([last], [expected[1]], 1e-5)
    assert_same([y.float()], [expected[0]], 8e-3)  # one rounding to bfloat16 of an exact result


def test_selective_scan_saves_no_state_per_token() -> None:
    """Autograd saves only the inputs and one state per chunk, counted in bytes."""
    B, T, D, N = 1, 8 * CHUNK_LENGTH, 4, 16
    saved: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    inputs = [x.requires_grad_() for x in make_inputs(T, torch.float32, B, D, N)]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        chunked_selective_scan(*inputs)
    per_token_states = 4 * B * T * D * N
    assert sum(saved.values()) < per_token_states


def test_selective_scan_operator_passes_opcheck() -> None:
    u, delta, A, B, C, _, h = (x.requires_grad_() for x in make_inputs(CHUNK_LENGTH + 1))
    arguments = [x.detach().contiguous().requires_grad_() for x in (u, delta, A.t(), B, C, h.transpose(1, 2))]
    for signed in (False, True):
        torch.library.opcheck(torch.ops.lmzoo.selective_scan, (*arguments, signed))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_selective_scan_compiles_in_one_graph(backend: str) -> None:
    inputs = make_inputs(CHUNK_LENGTH + 1)
    compiled = torch.compile(selective_scan, fullgraph=True, backend=backend)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(naive_selective_scan, inputs), 1e-10)


def test_selective_scan_flops_are_counted() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(20, B=2, D=5, N=3)]
    with FlopCounterMode(display=False) as counter:
        y, _ = chunked_selective_scan(*inputs)
        forward = counter.get_total_flops()
        y.sum().backward()
    assert forward == 4 * 2 * 20 * 5 * 3
    assert counter.get_total_flops() == 3 * forward


def test_selective_scan_is_bitwise_the_same_under_autocast() -> None:
    """Values and gradients of float32 inputs are bitwise equal with and without autocast."""
    inputs = make_inputs(CHUNK_LENGTH + 1, torch.float32)
    expected = values_and_gradients(chunked_selective_scan, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = values_and_gradients(chunked_selective_scan, inputs)
    assert_same(actual, expected, 0)


@pytest.mark.parametrize("scan", [naive_selective_scan, chunked_selective_scan])
def test_selective_scan_without_a_state_starts_from_zeros(scan: Scan) -> None:
    *inputs, h = make_inputs(3)
    assert_same(scan(*inputs), scan(*inputs, torch.zeros_like(h)), 0)


@each_case("T", LENGTHS)
def test_selective_scan_saves_one_state_per_chunk(T: int) -> None:
    u, delta, A, B, C, _, h = make_inputs(T)
    _, _, starts = torch.ops.lmzoo.selective_scan(u, delta, A.t().contiguous(), B, C, h.transpose(1, 2).contiguous())
    assert starts.shape == (math.ceil(T / CHUNK_LENGTH), 2, 3, 5)


@each_case("T", [1, SHORTEST_CHUNKED - 1, SHORTEST_CHUNKED])
def test_selective_scan_counts_as_its_definition(T: int) -> None:
    inputs = make_inputs(T)
    B, D, N = inputs[-1].shape
    with FlopCounter() as counter:
        selective_scan(*inputs)
    assert counter.get_total_flops() == 4 * B * T * D * N


# A step size of zero keeps the state and writes nothing; a large one, or a fast rate, forgets all. A rate of zero never
# forgets.
@each_case("delta, A", [(0.0, None), (1e4, None), (None, 0.0), (None, -1e4), (1e4, -1e4)])
@each_case("signed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_chunked_selective_scan_holds_at_extreme_decays(
    delta: float | None, A: float | None, signed: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(2 * CHUNK_LENGTH + 3, dtype)
    for i, value in ((1, delta), (2, A)):
        inputs[i] = inputs[i] if value is None else torch.full_like(inputs[i], value)
    actual = values_and_gradients(partial(chunked_selective_scan, signed=signed), inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(partial(naive_selective_scan, signed=signed), inputs), tolerance)
