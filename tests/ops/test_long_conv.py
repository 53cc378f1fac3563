"""Tests the long convolution's blocked form against its definition, and the definition against torch's convolution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.long_conv import BLOCK_LENGTH as C
from lmzoo.ops.long_conv import SHORTEST_BLOCKED, blocked_long_conv, long_conv, naive_long_conv, toeplitz
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

Form = Callable[..., Tensor]
LENGTHS = (1, 2, 3, SHORTEST_BLOCKED, C // 2 + 1, C - 1, C, C + 1, 2 * C, 2 * C + 3, 4 * C + 5)
BOTH = pytest.mark.parametrize("form", [naive_long_conv, blocked_long_conv])


def make_inputs(T: int, S: int, dtype: torch.dtype = torch.float64, *, L: int | None = None) -> list[Tensor]:
    """Returns inputs, filters of L positions, and S earlier inputs (no third tensor if S is 0)."""
    draw, B, D = torch.Generator().manual_seed(T), 2, 3
    shapes = [(B, T, D), (L or S + T, D)] + ([(B, S, D)] if S else [])
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


def listed(form: Form) -> Callable[..., list[Tensor]]:
    return lambda *inputs: [form(*inputs)]


@BOTH
@each_case("L", [C + 5, C + 9])
def test_long_conv_is_torchs_convolution(form: Form, L: int) -> None:
    """The rows of a filter that is too long are not read."""
    u, k = make_inputs(C + 5, 0, L=L)
    want = F.conv1d(F.pad(u.mT, (L - 1, 0)), k.T.flip(-1)[:, None], groups=3).mT
    assert_same([form(u, k)], [want], 1e-12)


@each_case("T", LENGTHS)
@each_case("S", [0, 1, C + 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_blocked_long_conv_is_the_naive_one(T: int, S: int, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, S, dtype)
    actual = values_and_gradients(listed(blocked_long_conv), inputs)
    assert_same(actual, values_and_gradients(listed(naive_long_conv), inputs), tolerance)


def test_blocked_long_conv_holds_for_filters_of_very_different_size() -> None:
    """Each value is as precise as the largest products that it adds."""
    u, k = make_inputs(4 * C, 0, torch.float32)
    k = k * torch.exp(-torch.arange(4 * C)[:, None] / 2)
    actual = values_and_gradients(listed(blocked_long_conv), [u, k])
    assert_same(actual, values_and_gradients(listed(naive_long_conv), [u, k]), 3e-6)


def test_blocked_long_conv_does_not_read_later_tokens() -> None:
    """Bitwise: not even the rounding depends on them."""
    for T, cut in ((13, 1), (13, 8), *((4 * C + 5, cut) for cut in (1, C - 1, C, C + 5, 2 * C, 3 * C + 1))):
        u, k = make_inputs(T, 0, torch.float32)
        changed = torch.cat([u[:, :cut], 1e6 * u[:, cut:]], dim=1)
        before, after = (blocked_long_conv(x, k) for x in (u, changed))
        assert torch.equal(before[:, :cut], after[:, :cut])


@BOTH
def test_long_conv_by_hand(form: Form) -> None:
    u, k, past = (torch.tensor(x)[:, None] for x in ([5.0, 7.0], [1.0, 10.0, 100.0], [3.0]))
    assert form(u[None], k, past[None]).flatten().tolist() == pytest.approx([5 + 30, 7 + 50 + 300], rel=1e-6)


@each_case("cut", [1, SHORTEST_BLOCKED, C, 2 * C + 2])
def test_long_conv_in_two_calls_is_one_call(cut: int) -> None:
    u, k = make_inputs(2 * C + 3, 0)
    second = long_conv(u[:, cut:], k, u[:, :cut])
    assert_same([torch.cat([long_conv(u[:, :cut], k), second], dim=1)], [long_conv(u, k)], 1e-12)


@each_case("T", [1, C + 3])
def test_long_conv_computes_bfloat16_inputs_in_float32(T: int) -> None:
    u, k, past = make_inputs(T, 5, torch.float32)
    expected = naive_long_conv(u.bfloat16().float(), k, past.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = long_conv(u.bfloat16(), k, past.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@BOTH
def test_long_conv_refuses_a_filter_that_is_too_short(form: Form) -> None:
    with pytest.raises(AssertionError, match="a filter of 6 positions for 7 inputs"):
        form(*make_inputs(7, 0, L=6))


@each_case("T, S", [(1, 0), (2, 5), (2 * C + 3, 0), (C, 5)])
def test_long_conv_counts_as_its_definition(T: int, S: int) -> None:
    with FlopCounter() as counter:
        long_conv(*make_inputs(T, S))
    assert counter.get_total_flops() == 2 * 2 * 3 * sum(S + t + 1 for t in range(T))


def test_toeplitz_has_the_filter_in_each_column() -> None:
    assert toeplitz(torch.tensor([[1, 2, 3]])).tolist() == [[[1, 0, 0], [2, 1, 0], [3, 2, 1]]]
