"""Tests of the taps of a dilated convolution: slices against the loop, and the loop against torch's convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lmzoo.ops.dilated_taps import dilated_taps, naive_dilated_taps, sliced_dilated_taps
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, width: int, dilation: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(T)
    shapes = [(2, T, 3), (2, (width - 1) * dilation, 3)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@each_case("T", [1, 3, 4, 5, 9])
@pytest.mark.parametrize(("width", "dilation"), [(1, 4), (2, 1), (2, 4), (3, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sliced_dilated_taps_are_the_naive_ones(T: int, width: int, dilation: int, dtype: torch.dtype) -> None:
    x, tail = make_inputs(T, width, dilation, dtype)
    for inputs in ([x], [x, tail]):

        def taps(x_BTD: Tensor, tail_BSD: Tensor | None = None, form: object = sliced_dilated_taps):
            return form(x_BTD, width, dilation, tail_BSD)

        def naive(x_BTD: Tensor, tail_BSD: Tensor | None = None):
            return taps(x_BTD, tail_BSD, naive_dilated_taps)

        assert_same(values_and_gradients(taps, inputs), values_and_gradients(naive, inputs), 1e-6)
        assert all(torch.equal(got, want) for got, want in zip(taps(*inputs), naive(*inputs), strict=True))


def test_dilated_taps_make_torchs_convolution() -> None:
    x, tail = make_inputs(9, 3, 2)
    weight_EDW = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.conv1d(torch.cat([tail, x], dim=1).transpose(1, 2), weight_EDW, dilation=2).transpose(1, 2)
    taps, _ = dilated_taps(x, 3, 2, tail)
    assert_same([taps @ rearrange(weight_EDW, "e d w -> (w d) e")], [expected], 1e-12)


@each_case("cut", [1, 4, 7])
def test_dilated_taps_in_two_calls_are_one_call(cut: int) -> None:
    x, tail = make_inputs(8, 3, 2)
    whole, last = dilated_taps(x, 3, 2, tail)
    first, middle = dilated_taps(x[:, :cut], 3, 2, tail)
    second, end = dilated_taps(x[:, cut:], 3, 2, middle)
    assert_same([torch.cat([first, second], dim=1), end], [whole, last], 0)


def test_dilated_taps_tail_does_not_keep_the_input_in_memory() -> None:
    x, tail = make_inputs(50, 2, 3)
    _, after = dilated_taps(x, 2, 3, tail)
    assert after.untyped_storage().nbytes() == after.nbytes
