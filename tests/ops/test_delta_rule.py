"""Tests the delta rule's chunked form against its definition, and the definition against explicit matrices in numpy and
flash-linear-attention's recurrence.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.delta_chunks import CHUNK_LENGTH as C
from lmzoo.ops.delta_chunks import LONGEST_SINGLE
from lmzoo.ops.delta_rule import SHORTEST_CHUNKED, chunked_delta_rule, delta_rule, naive_delta_rule
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (
    1,
    2,
    SHORTEST_CHUNKED - 1,
    SHORTEST_CHUNKED,
    LONGEST_SINGLE,
    LONGEST_SINGLE + 1,
    3 * C - 1,
    3 * C,
    4 * C + 3,
)


def make_inputs(
    T: int, dtype: torch.dtype = torch.float64, *, beta: float | None = None, B: int = 2, H: int = 3, K: int = 4
) -> list[Tensor]:
    """Returns queries, unit keys, values of another width, betas in (0, 2) or all equal to `beta`, and a state."""
    draw, V = torch.Generator().manual_seed(T), 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    q, k, v = normal(B, T, H, K) / math.sqrt(K), F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, V)
    betas = 2 * torch.rand(B, T, H, generator=draw, dtype=torch.float64)
    betas = betas if beta is None else torch.full_like(betas, beta)
    return [x.to(dtype) for x in (q, k, v, betas, normal(B, H, K, V))]


def explicit_delta_rule(inputs: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """The equation of the paper with an explicit matrix for each transition and the state as (V, K)."""
    q, k, v, beta, state = (x.detach().numpy() for x in inputs)
    B, T, H, K = k.shape
    y, last = np.zeros_like(v), np.zeros_like(state)
    for b in range(B):
        for h in range(H):
            S_VK = state[b, h].T
            for t in range(T):
                transition_KK = np.eye(K) - beta[b, t, h] * np.outer(k[b, t, h], k[b, t, h])
                S_VK = S_VK @ transition_KK + beta[b, t, h] * np.outer(v[b, t, h], k[b, t, h])
                y[b, t, h] = S_VK @ q[b, t, h]
            last[b, h] = S_VK.T
    return y, last


@pytest.mark.parametrize("rule", [naive_delta_rule, chunked_delta_rule, delta_rule])
@each_case("T", [1, 5, 2 * C + 3])
def test_delta_rule_is_the_equation_with_explicit_matrices(T: int, rule: Scan) -> None:
    inputs = make_inputs(T)
    for got, want in zip(rule(*inputs), explicit_delta_rule(inputs), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [naive_delta_rule, chunked_delta_rule])
@each_case("T", [3, 2 * C + 3])
def test_delta_rule_equals_fla(T: int, rule: Scan) -> None:
    """Its layout is (B, H, T, K), it scales the queries itself, and computes in float32."""
    recurrence = fla_naive.load("ops/delta_rule/naive.py").delta_rule_recurrence
    q, k, v, beta, state = make_inputs(T, torch.float32)
    y, last = recurrence(*(x.transpose(1, 2) for x in (q, k, v, beta)), initial_state=state)
    assert_same(rule(q * 4**-0.5, k, v, beta, state), [y.transpose(1, 2), last], 1e-5)


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_chunked_delta_rule_is_the_naive_one(T: int, with_state: bool, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)
    inputs = inputs if with_state else inputs[:-1]
    actual = values_and_gradients(chunked_delta_rule, inputs)
    assert_same(actual, values_and_gradients(naive_delta_rule, inputs), tolerance)


# With beta = 2 nothing decays: every write of the sequence stays in the state, and so does every rounding error.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@each_case("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("same_keys", [False, True])
def test_chunked_delta_rule_holds_at_extreme_betas(
    same_keys: bool, beta: float, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v, betas, state = make_inputs(2 * C + 3, dtype, beta=beta)
    k = k[:, :1].expand_as(k) if same_keys else k
    inputs = [q, k, v, betas, state]
    actual = values_and_gradients(chunked_delta_rule, inputs)
    assert_same(actual, values_and_gradients(naive_delta_rule, inputs), tolerance)


@pytest.mark.parametrize("rule", [naive_delta_rule, chunked_delta_rule])
def test_delta_rule_by_hand(rule: Scan) -> None:
    """Beta 0 keeps the memory, 1 replaces the value under a unit key, 2 reflects its difference to the new value."""
    for beta, expected in ((0.0, 3.0), (1.0, 10.0), (2.0, 17.0)):
        q = k = torch.tensor([[[[0.0, 1.0]]]])
        v, betas, state = torch.tensor([[[[10.0]]]]), torch.tensor([[[beta]]]), torch.tensor([[[[5.0], [3.0]]]])
        y, last = rule(q, k, v, betas, state)
        assert y.item() == expected
        assert last.flatten().tolist() == [5.0, expected], "the value under the other key stays"


def test_delta_rule_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(C + 1, B=1, H=1, K=2)]
    assert torch.autograd.gradcheck(chunked_delta_rule, inputs)


@each_case("output", [0, 1])
def test_delta_rule_gradient_of_one_output_alone(output: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(C + 2)]
    grads = [
        torch.autograd.grad(rule(*inputs)[output].square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for rule in (chunked_delta_rule, naive_delta_rule)
    ]
    assert_same(grads[0], grads[1], 1e-10)


@each_case("cut", [1, SHORTEST_CHUNKED, C - 1, C, C + 1, LONGEST_SINGLE + 1, 4 * C + 2])
def test_delta_rule_in_two_calls_is_one_call(cut: int) -> None:
    *inputs, state = make_inputs(4 * C + 3)
    whole, last = delta_rule(*inputs, state)
    first, middle = delta_rule(*(x[:, :cut] for x in inputs), state)
    second, end = delta_rule(*(x[:, cut:] for x in inputs), middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@pytest.mark.parametrize("rule", [naive_delta_rule, chunked_delta_rule])
def test_delta_rule_without_a_state_starts_from_zeros(rule: Scan) -> None:
    *inputs, state = make_inputs(3)
    assert_same(rule(*inputs), rule(*inputs, torch.zeros_like(state)), 0)


@each_case("T", [1, C + 3])
def test_delta_rule_computes_bfloat16_inputs_in_float32(T: int) -> None:
    *inputs, state = make_inputs(T, torch.float32)
    low = [x.bfloat16() for x in inputs]
    expected, last = naive_delta_rule(*(x.float() for x in low), state)
    y, got = delta_rule(*low, state)
    assert y.dtype == torch.bfloat16
    assert got.dtype == torch.float32
    assert_same([got], [last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, C + 3])
def test_delta_rule_is_bitwise_the_same_under_autocast(T: int) -> None:
    inputs = make_inputs(T, torch.float32)
    expected = delta_rule(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(delta_rule(*inputs), expected, 0)


@pytest.mark.parametrize(("backend", "T"), [("eager", 1), ("eager", C + 3), ("aot_eager", SHORTEST_CHUNKED)])
def test_delta_rule_compiles_in_one_graph(backend: str, T: int) -> None:
    inputs = make_inputs(T)
    compiled = torch.compile(delta_rule, fullgraph=True, backend=backend, dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(naive_delta_rule, inputs), 1e-10)


def test_delta_rule_can_be_recomputed() -> None:
    inputs = make_inputs(C + 3)
    recomputed = values_and_gradients(lambda *xs: checkpoint(delta_rule, *xs, use_reentrant=False), inputs)
    assert_same(recomputed, values_and_gradients(delta_rule, inputs), 0)


@each_case("T", [1, SHORTEST_CHUNKED - 1, SHORTEST_CHUNKED, 2 * C + 3])
def test_delta_rule_counts_as_its_definition(T: int) -> None:
    inputs = make_inputs(T, B=2, H=3, K=4)
    with FlopCounter() as counter:
        delta_rule(*inputs)
    assert counter.get_total_flops() == 6 * 2 * T * 3 * 4 * 5
