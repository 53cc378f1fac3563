"""Tests the gated delta rule's chunked form against its definition, and the definition against the loops of
flash-linear-attention, explicit matrices, and the delta rule without decays.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.delta_chunks import CHUNK_LENGTH as C
from lmzoo.ops.delta_chunks import LONGEST_SINGLE
from lmzoo.ops.delta_rule import naive_delta_rule
from lmzoo.ops.gated_delta_rule import (
    SHORTEST_CHUNKED,
    chunked_gated_delta_rule,
    gated_delta_rule,
    naive_gated_delta_rule,
)
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (1, 2, SHORTEST_CHUNKED, LONGEST_SINGLE, LONGEST_SINGLE + 1, 3 * C, 4 * C + 3)
BOTH = pytest.mark.parametrize("rule", [naive_gated_delta_rule, chunked_gated_delta_rule])


def make_inputs(
    T: int, A: int = 4, dtype: torch.dtype = torch.float64, *, beta: float | None = None, B: int = 2, H: int = 3
) -> list[Tensor]:
    """Returns queries, unit keys, values of another width, betas in (0, 2) or `beta`, decays from 0.02, and a state."""
    draw, K, V = torch.Generator().manual_seed(T), 4, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    q, k, v = normal(B, T, H, K) / math.sqrt(K), F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, V)
    betas = 2 * torch.rand(B, T, H, generator=draw, dtype=torch.float64)
    betas = betas if beta is None else torch.full_like(betas, beta)
    log_decay = -4 * torch.rand(B, T, H, A, generator=draw, dtype=torch.float64) ** 4
    return [x.to(dtype) for x in (q, k, v, betas, log_decay, normal(B, H, K, V))]


@BOTH
def test_gated_delta_rule_is_the_equation_with_explicit_matrices(rule: Scan) -> None:
    """S_t = (I - beta k k^T) diag(a) S_{t-1} + beta k v^T, for one row and head."""
    q, k, v, beta, log_decay, state = make_inputs(2 * C + 3, B=1, H=1)
    S_KV, ys = state[0, 0], []
    for t in range(2 * C + 3):
        key, erase = k[0, t, 0], beta[0, t, 0]
        transition_KK = (torch.eye(4) - erase * torch.outer(key, key)) @ torch.diag(log_decay[0, t, 0].exp())
        S_KV = transition_KK @ S_KV + erase * torch.outer(key, v[0, t, 0])
        ys.append(S_KV.T @ q[0, t, 0])
    y, last = rule(q, k, v, beta, log_decay, state)
    assert_same([y[0, :, 0], last[0, 0]], [torch.stack(ys), S_KV], 1e-12)


@each_case("T", LENGTHS)
@each_case("A", [1, 4])
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_chunked_gated_delta_rule_is_the_naive_one(
    T: int, A: int, with_state: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, A, dtype)
    inputs = inputs if with_state else inputs[:-1]
    actual = values_and_gradients(chunked_gated_delta_rule, inputs)
    assert_same(actual, values_and_gradients(naive_gated_delta_rule, inputs), tolerance)


@each_case("A", [1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@each_case("kind", ["none", "strong", "infinite", "mixed"])
@each_case("beta", [0.0, 2.0])
def test_chunked_gated_delta_rule_holds_at_extreme_decays_and_repeated_keys(
    beta: float, kind: str, A: int, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v, betas, log_decay, state = make_inputs(2 * C + 3, A, dtype, beta=beta)
    mixed = torch.where(log_decay < -0.5, -torch.inf, torch.where(log_decay < -0.1, -1e4, -1e-4))
    decays = {"none": 0.0, "strong": -1e4, "infinite": -torch.inf}
    log_decay = mixed.to(dtype) if kind == "mixed" else torch.full_like(log_decay, decays[kind])
    inputs = [q, k[:, :1].expand_as(k), v, betas, log_decay, state]
    actual = values_and_gradients(chunked_gated_delta_rule, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(naive_gated_delta_rule, inputs), tolerance)


@BOTH
def test_gated_delta_rule_without_decays_is_the_delta_rule(rule: Scan) -> None:
    *inputs, log_decay, state = make_inputs(2 * C + 3)
    assert_same(rule(*inputs, torch.zeros_like(log_decay), state), naive_delta_rule(*inputs, state), 1e-12)


@each_case("T", [3, 2 * C + 3])
def test_gated_delta_rule_equals_fla(T: int) -> None:
    q, k, v, beta, log_decay, state = make_inputs(T, 4, torch.float32)
    scaled, given = q * 4**-0.5, {"initial_state": state, "output_final_state": True}
    per_channel = fla_naive.load("ops/kda/naive.py").naive_recurrent_kda(q, k, v, log_decay, beta, **given)
    assert_same(gated_delta_rule(scaled, k, v, beta, log_decay, state), per_channel, 1e-5)
    per_head = fla_naive.load("ops/gated_delta_rule/naive.py").naive_recurrent_gated_delta_rule(
        q, k, v, beta, log_decay[..., 0], **given
    )
    assert_same(gated_delta_rule(scaled, k, v, beta, log_decay[..., :1], state), per_head, 1e-5)


@each_case("cut", [1, SHORTEST_CHUNKED, C, LONGEST_SINGLE + 1, 4 * C + 2])
def test_gated_delta_rule_in_two_calls_is_one_call(cut: int) -> None:
    *inputs, state = make_inputs(4 * C + 3)
    whole, last = gated_delta_rule(*inputs, state)
    first, middle = gated_delta_rule(*(x[:, :cut] for x in inputs), state)
    second, end = gated_delta_rule(*(x[:, cut:] for x in inputs), middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, C + 3])
def test_gated_delta_rule_computes_bfloat16_inputs_in_float32(T: int) -> None:
    *inputs, state = make_inputs(T, dtype=torch.float32)
    low = [x.bfloat16() for x in inputs]
    expected, last = naive_gated_delta_rule(*(x.float() for x in low), state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, got = gated_delta_rule(*low, state)
    assert (y.dtype, got.dtype) == (torch.bfloat16, torch.float32)
    assert_same([got], [last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, 2 * C + 3])
def test_gated_delta_rule_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        gated_delta_rule(*make_inputs(T))
    assert counter.get_total_flops() == 6 * 2 * T * 3 * 4 * 5
