"""Tests the diagonal state-space model's chunked form against its definition, and the definition against a convolution
with the filter of the paper.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.diagonal_ssm import CHUNK_LENGTH as C
from lmzoo.ops.diagonal_ssm import SHORTEST_CHUNKED, chunked_diagonal_ssm, diagonal_ssm, naive_diagonal_ssm
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients

LENGTHS = (1, 2, SHORTEST_CHUNKED, C - 1, C, C + 1, 2 * C, 2 * C + 3)
BOTH = pytest.mark.parametrize("form", [naive_diagonal_ssm, chunked_diagonal_ssm])


def make_inputs(T: int, dtype: torch.dtype = torch.float64, *, size: float | None = None) -> list[Tensor]:
    """Returns inputs, factors with absolute values in (0, 1) or all `size`, weights, and states."""
    draw, B, D, N = torch.Generator().manual_seed(T), 2, 3, 4
    size_DN, turn_DN = torch.rand(2, D, N, generator=draw, dtype=torch.float64).unbind(0)
    size_DN = size_DN if size is None else torch.full_like(size_DN, size)
    a_DN2 = torch.view_as_real(torch.polar(size_DN, 2 * math.pi * turn_DN))
    u, c, h = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((B, T, D), (D, N, 2), (B, D, N, 2)))
    return [x.to(dtype) for x in (u, a_DN2, c, h)]


@BOTH
def test_diagonal_ssm_is_a_convolution(form: Scan) -> None:
    """A direct sum over all pairs of positions, and a convolution with an FFT."""
    u, a, c, h = make_inputs(C + 3)
    T = u.shape[1]
    a_DN1, c_DN = torch.view_as_complex(a)[..., None], torch.view_as_complex(c)
    k_DT = 2 * torch.einsum("dn,dnt->dt", c_DN, a_DN1 ** torch.arange(T)).real
    direct = torch.stack([sum(k_DT[:, t - s] * u[:, s] for s in range(t + 1)) for t in range(T)], dim=1)
    assert_same([form(u, a, c)[0]], [direct], 1e-12)
    spectrum = torch.fft.rfft(u.mT, n=2 * T) * torch.fft.rfft(k_DT, n=2 * T)
    assert_same([form(u, a, c)[0]], [torch.fft.irfft(spectrum, n=2 * T)[..., :T].mT], 1e-12)
    from_start = 2 * torch.einsum("dn,dnt,bdn->btd", c_DN, a_DN1 ** torch.arange(1, T + 1), torch.view_as_complex(h))
    assert_same([form(u, a, c, h)[0]], [direct + from_start.real], 1e-12)


@each_case("T", LENGTHS)
@each_case("with_state", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_chunked_diagonal_ssm_is_the_naive_one(T: int, with_state: bool, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, dtype)[: 4 if with_state else 3]
    actual = values_and_gradients(chunked_diagonal_ssm, inputs)
    assert_same(actual, values_and_gradients(naive_diagonal_ssm, inputs), tolerance)


@each_case("size", [0.0, 1e-30, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_chunked_diagonal_ssm_holds_at_extreme_factors(size: float, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(2 * C + 3, dtype, size=size)
    actual = values_and_gradients(chunked_diagonal_ssm, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(naive_diagonal_ssm, inputs), tolerance)


def test_chunked_diagonal_ssm_does_not_read_later_tokens() -> None:
    u, a, c, h = make_inputs(2 * C + 3, torch.float32)
    for cut in (1, C - 1, C, C + 5):
        changed = torch.cat([u[:, :cut], 1e6 * u[:, cut:]], dim=1)
        before, after = (chunked_diagonal_ssm(x, a, c, h)[0] for x in (u, changed))
        assert torch.equal(before[:, :cut], after[:, :cut])


@BOTH
def test_diagonal_ssm_by_hand(form: Scan) -> None:
    """The state 1 + 2i turns by a quarter and halves: -1 + 0.5i, plus the input 3."""
    a, c, h = (torch.tensor([[x]]) for x in ([0.0, 0.5], [1.0, -10.0], [1.0, 2.0]))
    y, state = form(torch.tensor([[[3.0]]]), a, c, h[None])
    assert state.flatten().tolist() == [2.0, 0.5]
    assert y.item() == 2 * (2 + 5)


@each_case("cut", [1, SHORTEST_CHUNKED, C, 2 * C + 2])
def test_diagonal_ssm_in_two_calls_is_one_call(cut: int) -> None:
    u, a, c, h = make_inputs(2 * C + 3)
    whole, last = diagonal_ssm(u, a, c, h)
    first, middle = diagonal_ssm(u[:, :cut], a, c, h)
    second, end = diagonal_ssm(u[:, cut:], a, c, middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


@each_case("T", [1, C + 3])
def test_diagonal_ssm_computes_bfloat16_inputs_in_float32(T: int) -> None:
    u, *rest = make_inputs(T, torch.float32)
    expected, last = naive_diagonal_ssm(u.bfloat16().float(), *rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = diagonal_ssm(u.bfloat16(), *rest)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert_same([state], [last], 1e-5)
    assert_same([y.float()], [expected], 8e-3)  # one rounding to bfloat16 of a float32 result


@each_case("T", [1, 2 * C + 3])
def test_diagonal_ssm_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        diagonal_ssm(*make_inputs(T))
    assert counter.get_total_flops() == 12 * 2 * T * 3 * 4
