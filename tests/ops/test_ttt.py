"""Tests the mini-batch form of test-time training against its definition, and the definition against autograd and
against the loops of flash-linear-attention.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.ttt import SHORTEST_BATCHED, Decays, InnerNorm, Memory, batched_ttt, inner_gradient, naive_ttt, ttt
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import assert_same, values_and_gradients

C = 8
EPS = 1e-3
LENGTHS = (1, 2, SHORTEST_BATCHED, C - 1, C, C + 1, 2 * C + 3)
BOTH = pytest.mark.parametrize("form", [naive_ttt, batched_ttt])
Form = Callable[..., tuple[Tensor, Memory]]


def make_inputs(
    T: int, dtype: torch.dtype = torch.float64, *, titans: bool = False, B: int = 2, H: int = 3, K: int = 4
) -> list[Tensor]:
    """Returns queries, keys, values, rates, weight and bias of the norm, start, memory; log decays and velocity."""
    draw = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    tokens = [normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, K), 0.3 * normal(B, T, H).sigmoid()]
    norm = [1 + 0.2 * normal(H, K), 0.2 * normal(H, K)]
    memory = [normal(B, H, K + 1, K), normal(B, H, K + 1, K)]
    more = [-3 * normal(B, T, H).square(), -normal(B, T, H).square(), normal(B, H, K + 1, K)] if titans else []
    return [x.to(dtype) for x in (*tokens, *norm, *memory, *more)]


def run(form: Form, position: int = 0, mini_batch: int = C) -> Callable[..., list[Tensor]]:
    """Returns `form` as a function of the list of tensors that `make_inputs` returns, to a list of tensors."""

    def of_tensors(*inputs: Tensor) -> list[Tensor]:
        q, k, v, rate, weight, bias, start, now, *more = inputs
        decays, velocity = (Decays(more[0], more[1]), more[2]) if more else (None, None)
        memory = Memory(start, now + 0 * start, velocity)  # at a new mini-batch `start` alone would have no gradient
        norm = InnerNorm(weight, bias, EPS)
        y, last = form(q, k, v, rate, norm, memory, decays, mini_batch=mini_batch, position=position)
        return [y, *(x for x in last if x is not None)]

    return of_tensors


def by_autograd(inputs: list[Tensor], position: int) -> list[Tensor]:
    """Takes each step with the gradient that autograd computes of the loss written as in the paper."""
    q, k, v, rate, weight, bias, start, now, *more = inputs
    start, now, y = start.clone(), now.clone(), torch.zeros_like(q)
    velocity = more[2].clone() if more else torch.zeros_like(now)
    B, T, H, K = q.shape
    for b in range(B):
        for h in range(H):

            def f(x: Tensor, W: Tensor, h: int = h) -> Tensor:
                return x + F.layer_norm(W[:-1].T @ x + W[-1], (K,), weight[h], bias[h], EPS)

            for t in range(T):
                if (position + t) % C == 0:
                    start[b, h] = now[b, h]
                W = start[b, h].clone().requires_grad_()
                (gradient,) = torch.autograd.grad((f(k[b, t, h], W) - v[b, t, h]).square().sum() / 2, W)
                keep, momentum = (more[0][b, t, h].exp(), more[1][b, t, h].exp()) if more else (1, 0)
                velocity[b, h] = momentum * velocity[b, h] + rate[b, t, h] * gradient
                now[b, h] = keep * now[b, h] - velocity[b, h]
                y[b, t, h] = f(q[b, t, h], now[b, h])
    return [y, start, now, *([velocity] if more else [])]


@BOTH
@each_case("titans", [False, True])
@each_case("position", [0, 5])
def test_ttt_is_gradient_descent_by_autograd(form: Form, titans: bool, position: int) -> None:
    inputs = make_inputs(2 * C + 3, titans=titans)
    assert_same(run(form, position)(*inputs), by_autograd(inputs, position), 1e-12)


@each_case("T", LENGTHS)
@each_case("position", [0, 3])
@each_case("titans", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_batched_ttt_is_the_naive_one(
    T: int, position: int, titans: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, dtype, titans=titans)
    expected = values_and_gradients(run(naive_ttt, position), inputs)
    assert_same(values_and_gradients(run(batched_ttt, position), inputs), expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@each_case("kind", ["none", "weak", "strong", "infinite", "mixed"])
def test_batched_ttt_holds_at_extreme_decays(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    """Strong decays between weak ones must not reduce the precision of what follows them."""
    *inputs, log_keep, log_momentum, velocity = make_inputs(2 * C + 3, dtype, titans=True)
    logs = [log_keep, log_momentum]
    decays = {"none": 0.0, "weak": -1e-6, "strong": -1e4, "infinite": -torch.inf}
    if kind == "mixed":
        logs = [torch.where(x < -2, -torch.inf, torch.where(x < -1, -1e4, -1e-4)).to(dtype) for x in logs]
    else:
        logs = [torch.full_like(x, decays[kind]) for x in logs]
    inputs = [*inputs, *logs, velocity]
    actual = values_and_gradients(run(batched_ttt, 3), inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(run(naive_ttt, 3), inputs), tolerance)


@BOTH
@each_case("rate", [0.0, 100.0])
def test_ttt_holds_at_extreme_rates(form: Form, rate: float) -> None:
    """Without a step the memory stays; with a huge one it grows, but its loss has a small gradient then."""
    inputs = make_inputs(4 * C, torch.float32)
    inputs[3] = torch.full_like(inputs[3], rate)
    y, _, now = run(form)(*inputs)
    assert y.isfinite().all()
    assert now.isfinite().all()
    if rate == 0:
        assert torch.equal(now, inputs[7])


@BOTH
@each_case("T", [3, C, 2 * C + 3])
def test_ttt_equals_fla(form: Form, T: int) -> None:
    """They add the reading z itself to its norm, where the paper adds q, so z is what their output has more than ours.

    Their rates belong to the position that reads, so they are the same for all; and they change q in place.
    """
    q, k, v, rate, weight, bias, _, now = make_inputs(T, torch.float32)
    theirs = fla_naive.load("ops/ttt/naive.py").chunk_ttt_linear_ref
    sizes = {"scale": 1.0, "eps": EPS, "mini_batch_size": C, "output_final_state": True}
    state = {"initial_state": now[:, :, :-1], "initial_state_bias": now[:, :, -1:]}
    rates = torch.full_like(rate, 0.1)
    expected, W, b = theirs(q.clone(), k, v, weight, bias, rates[..., None].clone(), **sizes, **state)
    y, _, last = run(form)(q, k, v, rates, weight, bias, now, now)
    z = expected - (y - q)
    assert_same([y - q], [weight * F.layer_norm(z, (4,), eps=EPS) + bias], 2e-5)
    if T % C == 0:  # at the end of a part of a mini-batch they take steps with the padding
        assert_same([last], [torch.cat([W, b], dim=2)], 2e-5)


@each_case("T", [3, 2 * C + 3])
def test_ttt_without_momentum_and_forgetting_is_ttt_linear(T: int) -> None:
    inputs = make_inputs(T)
    nothing = torch.full_like(inputs[3], -torch.inf)
    y, start, now, _ = run(ttt)(*inputs, torch.zeros_like(nothing), nothing, torch.zeros_like(inputs[7]))
    assert_same([y, start, now], run(ttt)(*inputs), 1e-12)


@each_case("titans", [False, True])
def test_ttt_gradcheck(titans: bool) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(5, titans=titans, B=1, H=1, K=2)]
    assert torch.autograd.gradcheck(run(batched_ttt, 1, mini_batch=3), inputs)


def test_inner_gradient_is_the_one_of_autograd() -> None:
    *_, weight, bias, _, _ = make_inputs(1)
    z, target = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 4, dtype=torch.float64)
    loss = (weight * F.layer_norm(z, (4,), eps=EPS) + bias - target).square().sum() / 2
    torch.testing.assert_close(inner_gradient(z, target, weight, bias, EPS), *torch.autograd.grad(loss, z))


@each_case("cut", [1, C - 1, C, C + 1, 2 * C + 2])
@each_case("titans", [False, True])
def test_ttt_in_two_calls_is_one_call(cut: int, titans: bool) -> None:
    inputs = make_inputs(2 * C + 3, titans=titans)
    whole = run(ttt, 3)(*inputs)
    tokens, weights, memory, decays, velocity = inputs[:4], inputs[4:6], inputs[6:8], inputs[8:10], inputs[10:]
    (tokens, later_tokens), (decays, later_decays) = (
        ([x[:, :cut] for x in xs], [x[:, cut:] for x in xs]) for xs in (tokens, decays)
    )
    first, *middle = run(ttt, 3)(*tokens, *weights, *memory, *decays, *velocity)
    second, *end = run(ttt, 3 + cut)(*later_tokens, *weights, *middle[:2], *later_decays, *middle[2:])
    assert_same([torch.cat([first, second], dim=1), *end], whole, 1e-12)


@each_case("T", [1, 2 * C + 3])
@each_case("titans", [False, True])
def test_ttt_computes_bfloat16_inputs_in_float32(T: int, titans: bool) -> None:
    inputs = make_inputs(T, torch.float32, titans=titans)
    low = [x.bfloat16() if i < 4 else x for i, x in enumerate(inputs)]
    expected, *memory = run(naive_ttt)(*(x.float() for x in low))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, *got = run(ttt)(*low)
    assert y.dtype == torch.bfloat16
    assert_same(got, memory, 1e-4)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, 2 * C + 3])
def test_ttt_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        run(ttt)(*make_inputs(T))
    assert counter.get_total_flops() == 6 * 2 * T * 3 * 5 * 4
