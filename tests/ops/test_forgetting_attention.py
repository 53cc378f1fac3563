"""Tests attention with forget gates against its definition, and the definition against flash-linear-attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.attention import naive_attention
from lmzoo.ops.forgetting_attention import forgetting_attention, naive_forgetting_attention
from tests.cases import each_case
from tests.ops import fla_naive
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, S: int, dtype: torch.dtype = torch.float64, gate: float | None = None) -> list[Tensor]:
    """Returns queries of 4 heads, keys and values of 2, and the cumulative sums of log gates, drawn or all equal."""
    draw = torch.Generator().manual_seed(S)
    q, k, v, logits = (
        torch.randn(2, length, heads, *width, generator=draw, dtype=torch.float64)
        for length, heads, *width in ((T, 4, 5), (S, 2, 5), (S, 2, 5), (S, 4))
    )
    logits = logits if gate is None else torch.full_like(logits, gate)
    return [x.to(dtype) for x in (q, k, v, F.logsigmoid(logits).cumsum(dim=1))]


@each_case("T, S", [(1, 1), (7, 7), (1, 9), (4, 9)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_forgetting_attention_is_the_naive_one(T: int, S: int, dtype: torch.dtype, tolerance: float) -> None:
    def one(attention):  # type: ignore[no-untyped-def]
        return lambda *inputs: [attention(*inputs)]

    inputs = make_inputs(T, S, dtype)
    actual = values_and_gradients(one(forgetting_attention), inputs)
    assert_same(actual, values_and_gradients(one(naive_forgetting_attention), inputs), tolerance)


@pytest.mark.parametrize("attention", [naive_forgetting_attention, forgetting_attention])
def test_forgetting_attention_equals_flash_linear_attention(attention) -> None:  # type: ignore[no-untyped-def]
    theirs = fla_naive.load("ops/forgetting_attn/naive.py").naive_forgetting_attn
    q, k, v, decay = make_inputs(9, 9)
    log_gates = torch.diff(decay, dim=1, prepend=torch.zeros_like(decay[:, :1]))
    assert_same([attention(q, k, v, decay)], [theirs(q, k, v, log_gates).double()], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forgetting_attention_with_gates_of_one_is_attention(dtype: torch.dtype) -> None:
    *qkv, decay = make_inputs(5, 8, dtype, gate=200.0)
    assert_same([forgetting_attention(*qkv, decay)], [naive_attention(*qkv)], 1e-6)


def test_forgetting_attention_with_gates_of_zero_sees_the_token_alone() -> None:
    """Covers log gates of -1e4, whose exponentials with the wrong sign would overflow; gradients stay finite."""
    q, k, v, decay = make_inputs(6, 6, torch.float32, gate=-1e4)
    y, *gradients = values_and_gradients(lambda *inputs: [forgetting_attention(*inputs)], [q, k, v, decay])
    assert_same([y], [v.repeat_interleave(2, dim=2)], 1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_case("T, S", [(1, 9), (9, 9)])
def test_forgetting_attention_takes_bfloat16(T: int, S: int) -> None:
    """The sums of log gates stay in float32: those of a long text would lose the last gates."""
    *qkv, decay = make_inputs(T, S, torch.float32)
    low, decay = [x.bfloat16() for x in qkv], decay - 1000.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = forgetting_attention(*low, decay)
    assert y.dtype == torch.bfloat16
    assert_same([y.float()], [naive_forgetting_attention(*(x.float() for x in low), decay)], 2e-2)
