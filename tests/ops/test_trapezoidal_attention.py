"""Tests trapezoidal attention's fast form against its definition, and the definition by hand and in limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.gated_linear_attention import naive_gated_linear_attention
from lmzoo.ops.linear_chunks import CHUNK_LENGTH as C
from lmzoo.ops.trapezoidal_attention import (
    SHORTEST_CHUNKED,
    TrapezoidalState,
    naive_trapezoidal_attention,
    shifted_trapezoidal_attention,
    trapezoidal_attention,
)
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

Form = Callable[..., tuple[Tensor, TrapezoidalState]]
LENGTHS = (1, 2, 3, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C + 3)
BOTH = pytest.mark.parametrize("form", [naive_trapezoidal_attention, shifted_trapezoidal_attention])


def make_inputs(T: int, dtype: torch.dtype = torch.float64, *, B: int = 2, H: int = 3) -> list[Tensor]:
    """Returns queries, keys, values, decays from 0.02 to 1, both weights, and the three parts of a state."""
    draw, K, V = torch.Generator().manual_seed(T), 4, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    log_decay = -4 * torch.rand(B, T, H, 1, generator=draw, dtype=torch.float64) ** 4
    weights = [torch.rand(B, T, H, 1, generator=draw, dtype=torch.float64) for _ in range(2)]
    tokens = [normal(B, T, H, K) / math.sqrt(K), normal(B, T, H, K), normal(B, T, H, V)]
    inputs = [*tokens, log_decay, *weights, normal(B, H, K, V), normal(B, H, K), normal(B, H, V)]
    return [x.to(dtype) for x in inputs]


def flat(form: Form) -> Callable[..., Sequence[Tensor]]:
    """Returns a function of tensors that returns tensors: the last three arguments, if given, are the state."""

    def run(*inputs: Tensor) -> list[Tensor]:
        y, state = form(*inputs[:6], TrapezoidalState(*inputs[6:]) if len(inputs) > 6 else None)
        return [y, *state]

    return run


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_shifted_trapezoidal_attention_is_the_naive_one(
    T: int, with_state: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, dtype)
    inputs = inputs if with_state else inputs[:-3]
    actual = values_and_gradients(flat(shifted_trapezoidal_attention), inputs)
    assert_same(actual, values_and_gradients(flat(naive_trapezoidal_attention), inputs), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@each_case("kind", ["none", "weak", "strong", "infinite", "mixed"])
def test_shifted_trapezoidal_attention_holds_at_extreme_decays(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(2 * C + 3, dtype)
    log_decay = inputs[3]
    mixed = torch.where(log_decay < -0.5, -torch.inf, torch.where(log_decay < -0.1, -1e4, -1e-4))
    decays = {"none": 0.0, "weak": -1e-6, "strong": -1e4, "infinite": -torch.inf}
    inputs[3] = mixed.to(dtype) if kind == "mixed" else torch.full_like(log_decay, decays[kind])
    actual = values_and_gradients(flat(shifted_trapezoidal_attention), inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(flat(naive_trapezoidal_attention), inputs), tolerance)


@BOTH
def test_trapezoidal_attention_by_hand(form: Form) -> None:
    """A memory of 8 and a token of key 1 and value 2 before; weights 3 and 0.5, a decay of 0.25."""
    q, k, v, a, b, g = (torch.tensor([[[[x]]]]) for x in (10.0, 2.0, 4.0, 0.25, 3.0, 0.5))
    state = TrapezoidalState(torch.tensor([[[[8.0]]]]), torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]]))
    y, after = form(q, k, v, a.log(), b, g, state)
    assert after.memory.item() == 0.25 * (8 + 3 * 1 * 2) + 0.5 * 2 * 4
    assert y.item() == 10 * after.memory.item()
    assert (after.k.item(), after.v.item()) == (2, 4)


@BOTH
def test_trapezoidal_attention_without_the_start_of_a_step_is_gated_linear_attention(form: Form) -> None:
    q, k, v, log_decay, start, end, memory, *before = make_inputs(C + 3)
    y, state = form(q, k, v, log_decay, 0 * start, end, TrapezoidalState(memory, *before))
    assert_same([y, state.memory], naive_gated_linear_attention(q, k, end * v, log_decay, memory), 1e-12)


@BOTH
def test_trapezoidal_attention_is_second_order(form: Form) -> None:
    """The integral of exp(s - t) cos(s) from 0 to t = 2; half the step size makes the error a quarter."""
    errors = []
    for n in (40, 80):
        dt = 2 / n
        times = torch.arange(n + 1, dtype=torch.float64)[None, :, None, None] * dt
        half, ones = torch.full_like(times, dt / 2), torch.ones_like(times)
        # The first token is at the time 0, where no step ends.
        end = torch.cat([torch.zeros_like(half[:, :1]), half[:, 1:]], dim=1)
        y, _ = form(ones, ones, times.cos(), -dt * ones, half, end)
        exact = (math.cos(2) + math.sin(2) - math.exp(-2)) / 2
        errors.append(abs(y[0, -1, 0, 0].item() - exact))
    assert 3.9 < errors[0] / errors[1] < 4.1
    assert errors[0] < 1e-3


@each_case("cut", [1, SHORTEST_CHUNKED, C, 2 * C + 2])
def test_trapezoidal_attention_in_two_calls_is_one_call(cut: int) -> None:
    inputs, state = make_inputs(2 * C + 3)[:6], TrapezoidalState(*make_inputs(2 * C + 3)[6:])
    whole, last = trapezoidal_attention(*inputs, state)
    first, middle = trapezoidal_attention(*(x[:, :cut] for x in inputs), state)
    second, end = trapezoidal_attention(*(x[:, cut:] for x in inputs), middle)
    assert_same([torch.cat([first, second], dim=1), *end], [whole, *last], 1e-12)


@each_case("T", [1, C + 3])
def test_trapezoidal_attention_computes_bfloat16_inputs_in_float32(T: int) -> None:
    *inputs, memory, k, v = make_inputs(T, torch.float32)
    low, before = [x.bfloat16() for x in inputs], TrapezoidalState(memory, k, v)
    expected, last = naive_trapezoidal_attention(*(x.float() for x in low), before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = trapezoidal_attention(*low, before)
    assert (y.dtype, *(x.dtype for x in state)) == (torch.bfloat16, *[torch.float32] * 3)
    assert_same(state, last, 1e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, 2 * C + 3])
def test_trapezoidal_attention_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        trapezoidal_attention(*make_inputs(T)[:6])
    assert counter.get_total_flops() == 6 * 2 * T * 3 * 4 * 5
