"""Tests PaTH attention in chunks against its definition, and both against explicit matrices, the naive form of
flash-linear-attention, and attention without transformations.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.attention import naive_attention
from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.forgetting_attention import naive_forgetting_attention
from lmzoo.ops.path_attention import CHUNK_LENGTH as C
from lmzoo.ops.path_attention import chunked_path_attention, naive_path_attention, path_attention
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import Scan, assert_same, values_and_gradients

BOTH = pytest.mark.parametrize("attention", [naive_path_attention, chunked_path_attention])
GATED = pytest.mark.parametrize("gated", [False, True])
K = 5


def make_inputs(
    T: int,
    P: int = 0,
    dtype: torch.dtype = torch.float64,
    *,
    beta: float | None = None,
    gate: float | None = None,
    H: int = 4,
    G: int = 2,
) -> list[Tensor]:
    """Returns queries of H heads, keys, values, unit directions and betas in (0, 2) or `beta` of G heads, P earlier
    keys, and the cumulative sums of log gates, drawn or all equal.
    """
    draw = torch.Generator().manual_seed(100 * T + P)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    q, k, v = normal(2, T, H, K), normal(2, T, G, K), normal(2, P + T, G, K)
    w, betas = F.normalize(normal(2, T, G, K), dim=-1), 2 * normal(2, T, G).sigmoid()
    betas = betas if beta is None else torch.full_like(betas, beta)
    logits = normal(2, P + T, H)
    logits = logits if gate is None else torch.full_like(logits, gate)
    return [x.to(dtype) for x in (q, k, v, w, betas, normal(2, P, G, K), F.logsigmoid(logits).cumsum(dim=1))]


def without(attention: Scan, *, gated: bool) -> Scan:
    """Returns the function of all inputs but the gates if these are not wanted."""
    return attention if gated else lambda *inputs: attention(*inputs[:6])


@BOTH
@GATED
@each_case("P", [0, 3])
def test_path_attention_is_the_equation_with_explicit_matrices(attention: Scan, P: int, gated: bool) -> None:
    """The product of the matrices from the key to the query, for each pair of tokens; one row, and one head of two."""
    T = C + 2
    inputs = make_inputs(T, P)
    q, k, v, w, beta, past, decay = (x[1] for x in inputs)
    h, g, eye = 3, 1, torch.eye(K, dtype=torch.float64)
    H_TKK = [eye - beta[t, g] * torch.outer(w[t, g], w[t, g]) for t in range(T)]
    ys = []
    for t in range(T):
        scores = torch.zeros(P + t + 1, dtype=torch.float64)
        for s in range(P + t + 1):
            first = max(s - P + 1, 0)  # the first new token after the key
            product = torch.linalg.multi_dot([*reversed(H_TKK[first : t + 1]), eye, eye])
            scores[s] = q[t, h] @ product @ (past[s, g] if s < P else k[s - P, g]) / math.sqrt(K)
            scores[s] += decay[P + t, h] - decay[s, h] if gated else 0
        ys.append(scores.softmax(0) @ v[: P + t + 1, g])
    y, keys = without(attention, gated=gated)(*inputs)
    assert_same([y[1, :, h]], [torch.stack(ys)], 1e-12)
    last = [torch.linalg.multi_dot([*reversed(H_TKK[s + 1 :]), eye, eye]) @ k[s, g] for s in range(T)]
    assert_same([keys[1, P:, g]], [torch.stack(last)], 1e-12)


@pytest.mark.parametrize(
    ("T", "P"), [(1, 0), (1, 7), (2, 0), (C - 1, 0), (C, 0), (C + 1, 0), (2 * C + 3, 0), (5, 3), (C + 1, 2), (C, C)]
)
@GATED
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_chunked_path_attention_is_the_naive_one(
    T: int, P: int, gated: bool, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, P, dtype)[: 7 if gated else 6]
    actual = values_and_gradients(chunked_path_attention, inputs)
    assert_same(actual, values_and_gradients(naive_path_attention, inputs), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@each_case("beta", [0.0, 1.0, 2.0])
@each_case("gate", [100.0, -1e4])
def test_chunked_path_attention_holds_at_extremes_and_repeated_directions(
    gate: float, beta: float, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v, w, betas, past, decay = make_inputs(2 * C + 3, 2, dtype, beta=beta, gate=gate)
    inputs = [q, k, v, w[:, :1].expand_as(w), betas, past, decay]
    actual = values_and_gradients(chunked_path_attention, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(naive_path_attention, inputs), tolerance)


@BOTH
@GATED
def test_path_attention_equals_fla(attention: Scan, gated: bool) -> None:
    """They add the log gates before the scores are scaled, and pad the last of their chunks of 16 tokens."""
    q, k, v, w, beta, _, decay = make_inputs(C + 6, 0, torch.float32)
    log_gates = torch.diff(decay, dim=1, prepend=torch.zeros_like(decay[:, :1])) if gated else torch.zeros_like(decay)
    theirs = fla_naive.load("ops/path_attn/naive.py").naive_path_attn
    expected = theirs(q, k, v, w, beta, log_gates, scale=K**-0.5, chunk_size=16)
    y, _ = attention(q, k, v, w, beta, None, decay * K**-0.5 if gated else None)
    assert_same([y], [expected], 1e-5)


@BOTH
def test_path_attention_with_strengths_of_zero_is_attention(attention: Scan) -> None:
    q, k, v, w, beta, past, decay = make_inputs(C + 3, 2, beta=0.0)
    keys = torch.cat([past, k], dim=1)
    assert_same(attention(q, k, v, w, beta, past), [naive_attention(q, keys, v), keys], 1e-12)
    y, _ = attention(q, k, v, w, beta, past, decay)
    assert_same([y], [naive_forgetting_attention(q, keys, v, decay)], 1e-12)


@BOTH
def test_path_attention_projects_keys_out_by_hand(attention: Scan) -> None:
    """A token with beta = 1 removes its direction from earlier keys, not from its own; beta = 2 reflects them."""
    for beta, expected in ((1.0, [[0.0, 1.0], [1.0, 0.0]]), (2.0, [[-1.0, 1.0], [1.0, 0.0]])):
        k_BTGK = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).view(1, 2, 1, 2)
        w_BTGK = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 2, 1, 2)
        _, keys = attention(k_BTGK, k_BTGK, k_BTGK, w_BTGK, torch.full((1, 2, 1), beta))
        assert keys.view(2, 2).tolist() == expected


@GATED
@each_case("cut", [1, 2, C - 1, C, 2 * C + 2])
def test_path_attention_in_two_calls_is_one_call(cut: int, gated: bool) -> None:
    q, k, v, w, beta, past, decay = make_inputs(2 * C + 3, 2)
    whole, keys = without(path_attention, gated=gated)(q, k, v, w, beta, past, decay)
    seen = [x[:, : 2 + cut] for x in (v, decay)]
    before = [x[:, :cut] for x in (q, k, w, beta)]
    first, middle = without(path_attention, gated=gated)(*before[:2], seen[0], *before[2:], past, seen[1])
    rest = [x[:, cut:] for x in (q, k, w, beta)]
    second, end = without(path_attention, gated=gated)(*rest[:2], v, *rest[2:], middle, decay)
    assert_same([torch.cat([first, second], dim=1), end], [whole, keys], 1e-12)


@each_case("T", [1, C + 3])
def test_path_attention_computes_bfloat16_inputs_in_float32(T: int) -> None:
    *inputs, decay = make_inputs(T, 4, torch.float32)
    low = [*(x.bfloat16() for x in inputs[:5]), inputs[5]]
    expected, last = naive_path_attention(*(x.float() for x in low), decay)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, keys = path_attention(*low, decay)
    assert (y.dtype, keys.dtype) == (torch.bfloat16, torch.float32)
    assert_same([keys], [last], 2e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T, P", [(1, 9), (2 * C + 3, 0)])
def test_path_attention_counts_as_its_definition(T: int, P: int) -> None:
    with FlopCounter() as counter:
        path_attention(*make_inputs(T, P))
    assert counter.get_total_flops() == 4 * 2 * T * (P + T) * K * (4 + 2)
