"""Tests delta products on the expanded sequence against their definition, and the definition against explicit matrices,
the naive form of flash-linear-attention, and the delta rule of one step.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.delta_chunks import LONGEST_SINGLE as C
from lmzoo.ops.delta_product import delta_product, expanded_delta_product, naive_delta_product
from lmzoo.ops.gated_delta_rule import naive_gated_delta_rule
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

BOTH = pytest.mark.parametrize("product", [naive_delta_product, expanded_delta_product])
GATED = pytest.mark.parametrize("gated", [False, True])


def make_inputs(
    T: int, N: int, dtype: torch.dtype = torch.float64, *, beta: float | None = None, B: int = 2, H: int = 3
) -> list[Tensor]:
    """Returns queries, unit keys, values of another width, betas in (0, 2) or `beta`, decays from 0.02, and a state."""
    draw, K, V = torch.Generator().manual_seed(10 * T + N), 4, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    q, k, v = normal(B, T, H, K) / math.sqrt(K), F.normalize(normal(B, T, N, H, K), dim=-1), normal(B, T, N, H, V)
    betas = 2 * torch.rand(B, T, N, H, generator=draw, dtype=torch.float64)
    betas = betas if beta is None else torch.full_like(betas, beta)
    log_decay = -4 * torch.rand(B, T, H, generator=draw, dtype=torch.float64) ** 4
    return [x.to(dtype) for x in (q, k, v, betas, log_decay, normal(B, H, K, V))]


def results(product: Scan, inputs: list[Tensor], *, gated: bool, with_state: bool = True) -> list[Tensor]:
    """Returns values and gradients of `product` for the inputs, without the decays or the state if so chosen."""
    *qkv_beta, log_decay, state = inputs
    optional = [log_decay] * gated + [state] * with_state

    def call(*given: Tensor) -> tuple[Tensor, Tensor]:
        rest = list(given[4:])
        return product(*given[:4], rest.pop(0) if gated else None, rest.pop(0) if with_state else None)

    return values_and_gradients(call, [*qkv_beta, *optional])


@BOTH
@GATED
@each_case("N", [1, 3])
def test_delta_product_is_the_equation_with_explicit_matrices(product: Scan, N: int, gated: bool) -> None:
    """S_t = H_N ... H_1 a S_{t-1} + the writes, for one row and head, H_n = I - beta_n k_n k_n^T."""
    q, k, v, beta, log_decay, state = make_inputs(C + 3, N, B=1, H=1)
    S_KV, ys = state[0, 0], []
    for t in range(C + 3):
        transition_KK, written_KV = torch.eye(4, dtype=torch.float64), torch.zeros_like(S_KV)
        for n in range(N):
            key, share = k[0, t, n, 0], beta[0, t, n, 0]
            step_KK = torch.eye(4, dtype=torch.float64) - share * torch.outer(key, key)
            transition_KK = step_KK @ transition_KK
            written_KV = step_KK @ written_KV + share * torch.outer(key, v[0, t, n, 0])
        S_KV = transition_KK @ (log_decay[0, t, 0].exp() * S_KV if gated else S_KV) + written_KV
        ys.append(S_KV.T @ q[0, t, 0])
    y, last = product(q, k, v, beta, log_decay if gated else None, state)
    assert_same([y[0, :, 0], last[0, 0]], [torch.stack(ys), S_KV], 1e-12)


# Of the expanded sequence, which is one chunk up to C positions: one chunk and less, the boundary, and more.
@pytest.mark.parametrize(
    ("T", "N"),
    [(1, 1), (1, 3), (2, 2), (C // 2 - 1, 2), (C // 2, 2), (C // 2 + 1, 2), (11, 3), (C - 1, 1), (C + 1, 4), (23, 3)],
)
@GATED
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_expanded_delta_product_is_the_naive_one(
    T: int, N: int, gated: bool, with_state: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, N, dtype)
    actual = results(expanded_delta_product, inputs, gated=gated, with_state=with_state)
    assert_same(actual, results(naive_delta_product, inputs, gated=gated, with_state=with_state), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("decay", [0.0, -1e4, -torch.inf])
@each_case("beta", [0.0, 2.0])
def test_expanded_delta_product_holds_at_extreme_decays_and_repeated_keys(
    beta: float, decay: float, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v, betas, log_decay, state = make_inputs(C + 3, 2, dtype, beta=beta)
    inputs = [q, k[:, :1].expand_as(k), v, betas, torch.full_like(log_decay, decay), state]
    actual = results(expanded_delta_product, inputs, gated=True)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, results(naive_delta_product, inputs, gated=True), tolerance)


@BOTH
@GATED
def test_delta_product_equals_fla(product: Scan, gated: bool) -> None:
    """Their decays also apply to the first step of a token only; their keys are in sequence, (B, N T, H, K)."""
    q, k, v, beta, log_decay, state = make_inputs(C + 3, 3, torch.float32)
    flat = [x.flatten(1, 2) for x in (k, v)]
    reference = fla_naive.load("ops/gated_delta_product/naive.py").naive_recurrent_gated_delta_product
    options = {"scale": 0.5, "initial_state": state.clone(), "output_final_state": True, "num_householder": 3}
    expected = reference(q, *flat, log_decay if gated else None, beta.flatten(1, 2), **options)
    assert_same(product(0.5 * q, k, v, beta, log_decay if gated else None, state), expected, 1e-5)


@BOTH
def test_delta_product_of_one_step_is_the_gated_delta_rule(product: Scan) -> None:
    q, k, v, beta, log_decay, state = make_inputs(C + 3, 1)
    expected = naive_gated_delta_rule(q, k[:, :, 0], v[:, :, 0], beta[:, :, 0], log_decay[..., None], state)
    assert_same(product(q, k, v, beta, log_decay, state), expected, 1e-12)


@BOTH
def test_delta_product_of_two_reflections_rotates(product: Scan) -> None:
    """Two mirrors at an angle of 60 degrees turn by 120 degrees: three tokens bring everything back."""
    keys_NK = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    k_BTNHK, q_BTHK = keys_NK.expand(1, 3, 2, 2).unsqueeze(3), torch.eye(2, dtype=torch.float64)[0].expand(1, 3, 1, 2)
    v_BTNHV, beta_BTNH = q_BTHK.new_zeros(1, 3, 2, 1, 1), q_BTHK.new_full((1, 3, 2, 1), 2.0)
    state_BHKV = torch.tensor([[1.0], [0.0]], dtype=torch.float64)[None, None]
    y, last = product(q_BTHK, k_BTNHK, v_BTNHV, beta_BTNH, None, state_BHKV)
    assert_same([y.flatten(), last], [torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64), state_BHKV], 1e-12)


@GATED
@each_case("cut", [1, 2, C // 2, C + 2])
def test_delta_product_in_two_calls_is_one_call(cut: int, gated: bool) -> None:
    *inputs, log_decay, state = make_inputs(C + 3, 2)
    sequences = [*inputs, log_decay]

    def part(start: int, end: int | None, given: Tensor) -> tuple[Tensor, Tensor]:
        *rest, decays = (x[:, start:end] for x in sequences)
        return delta_product(*rest, decays if gated else None, given)

    whole, last = part(0, None, state)
    first, middle = part(0, cut, state)
    second, end = part(cut, None, middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@GATED
@each_case("T", [1, C + 3])
def test_delta_product_computes_bfloat16_inputs_in_float32(T: int, gated: bool) -> None:
    *inputs, log_decay, state = make_inputs(T, 2, torch.float32)
    low, decays = [x.bfloat16() for x in inputs], log_decay if gated else None
    expected, last = naive_delta_product(*(x.float() for x in low), decays, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, got = delta_product(*low, decays, state)
    assert (y.dtype, got.dtype) == (torch.bfloat16, torch.float32)
    assert_same([got], [last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, C + 3])
def test_delta_product_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        delta_product(*make_inputs(T, 3))
    assert counter.get_total_flops() == (4 * 3 + 2) * 2 * T * 3 * 4 * 5
