"""Tests the generalized delta rule's chunked form against its definition, and the definition against others."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.delta_rule import naive_delta_rule
from lmzoo.ops.dplr import SHORTEST_CHUNKED, chunked_dplr, dplr, naive_dplr
from lmzoo.ops.linear_chunks import CHUNK_LENGTH as C
from tests.cases import each_case
from tests.ops.fla_naive import load
from tests.ops.scans import assert_same, values_and_gradients

LENGTHS = (1, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C + 3)


def make_inputs(
    T: int, dtype: torch.dtype = torch.float64, *, log_w: float | None = None, B: int = 2, H: int = 3, K: int = 4
) -> list[Tensor]:
    """Returns r, log decays (all equal to `log_w` if given), k, v of another width, a, b, and a state.

    As in RWKV-7, a is minus a unit key and b the same key times a rate below 1.
    """
    draw, V = torch.Generator().manual_seed(T), 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    key, rate = F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, K).sigmoid()
    log_decay = -normal(B, T, H, K).exp()
    log_decay = log_decay if log_w is None else torch.full_like(log_decay, log_w)
    inputs = (normal(B, T, H, K), log_decay, normal(B, T, H, K), normal(B, T, H, V), -key, key * rate)
    return [x.to(dtype) for x in (*inputs, normal(B, H, K, V))]


@each_case("T", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_chunked_dplr_is_the_naive_one(T: int, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)
    for given in (inputs, inputs[:-1]):
        actual = values_and_gradients(chunked_dplr, given)
        assert_same(actual, values_and_gradients(naive_dplr, given), tolerance)


@pytest.mark.parametrize("log_w", [0.0, -1e-6, -30.0, -1e4])
@pytest.mark.parametrize("same_keys", [False, True])
def test_chunked_dplr_holds_at_extreme_decays(same_keys: bool, log_w: float) -> None:
    """Decays of 1, nearly 1, nearly 0 and 0; in float32, too, where exp(30 * C) overflows."""
    r, decay, k, v, a, b, state = make_inputs(2 * C + 3, log_w=log_w)
    if same_keys:
        k, a, b = (x[:, :1].expand_as(x) for x in (k, a, b))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        inputs = [x.to(dtype) for x in (r, decay, k, v, a, b, state)]
        actual = values_and_gradients(chunked_dplr, inputs)
        assert_same(actual, values_and_gradients(naive_dplr, inputs), tolerance)


def test_chunked_dplr_accepts_a_decay_of_zero() -> None:
    r, decay, k, v, a, b, state = make_inputs(2 * C + 3)
    decay = torch.where(torch.arange(decay.shape[1])[:, None, None] % 7 == 3, -math.inf, decay)
    inputs = [r, decay, k, v, a, b, state]
    actual = values_and_gradients(chunked_dplr, inputs)
    assert_same(actual, values_and_gradients(naive_dplr, inputs), 1e-10)
    assert all(x.isfinite().all() for x in actual)


def test_naive_dplr_is_the_delta_rule_without_decay() -> None:
    r, decay, k, v, *_, state = make_inputs(6)
    k, beta_BTH = F.normalize(k, dim=-1), torch.rand(k.shape[:3], generator=torch.Generator().manual_seed(0)).double()
    written = beta_BTH[..., None] * k
    actual = naive_dplr(r, torch.zeros_like(decay), written, v, -k, written, state)
    assert_same(actual, naive_delta_rule(r, k, v, beta_BTH, state), 1e-12)


def test_dplr_is_that_of_flash_linear_attention() -> None:
    """Its queries are divided by sqrt(K), and it computes in float32."""
    r, decay, k, v, a, b, state = make_inputs(2 * C + 3, torch.float32)
    heads_first = (x.transpose(1, 2) for x in (r * r.shape[-1] ** 0.5, k, v, a, b, decay))
    expected, last = load("ops/generalized_delta_rule/dplr/naive.py").dplr_recurrence(*heads_first, initial_state=state)
    y, memory = dplr(r, decay, k, v, a, b, state)
    assert_same([y, memory], [expected.transpose(1, 2), last], 1e-5)


@each_case("cut", [1, C, C + 1])
def test_dplr_in_two_calls_is_one_call(cut: int) -> None:
    *inputs, state = make_inputs(2 * C + 3)
    whole, last = dplr(*inputs, state)
    first, middle = dplr(*(x[:, :cut] for x in inputs), state)
    second, end = dplr(*(x[:, cut:] for x in inputs), middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, C + 3])
def test_dplr_computes_bfloat16_inputs_in_float32_under_autocast_too(T: int) -> None:
    *inputs, state = make_inputs(T, torch.float32)
    low = [x.bfloat16() for x in inputs]
    expected, last = naive_dplr(*(x.float() for x in low), state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, got = dplr(*low, state)
    assert (y.dtype, got.dtype) == (torch.bfloat16, torch.float32)
    assert_same([got], [last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16


def test_dplr_compiles_in_one_graph() -> None:
    inputs = make_inputs(SHORTEST_CHUNKED)
    compiled = torch.compile(dplr, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(naive_dplr, inputs), 1e-10)


@each_case("T", [1, 2 * C + 3])
def test_dplr_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        dplr(*make_inputs(T))
    assert counter.get_total_flops() == 8 * 2 * T * 3 * 4 * 5
