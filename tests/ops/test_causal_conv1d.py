"""Tests of the causal convolution: fast form against definition, definition against torch with left padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.ops.causal_conv1d import SHORTEST_SHIFTED, causal_conv1d, naive_causal_conv1d, shifted_causal_conv1d
from lmzoo.ops.counting import FlopCounter
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients


def make_inputs(T: int, dtype: torch.dtype = torch.float64, width: int = 4) -> list[Tensor]:
    draw = torch.Generator().manual_seed(T)
    shapes = [(2, T, 5), (5, width), (5,), (2, width - 1, 5)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@each_case("T", [1, 2, 3, 4, 11])
@each_case("width", [1, 2, 4])
@each_case("given", [2, 3, 4])  # without a bias, without a tail, with all
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_shifted_causal_conv1d_equals_naive(
    T: int, width: int, given: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = make_inputs(T, dtype, width)[:given]
    actual = values_and_gradients(shifted_causal_conv1d, inputs)
    assert_same(actual, values_and_gradients(naive_causal_conv1d, inputs), tolerance)


def test_naive_causal_conv1d_equals_torch() -> None:
    x, weight, bias, tail = make_inputs(9)
    padded = torch.cat([tail, x], dim=1)
    expected = F.conv1d(padded.transpose(1, 2), weight[:, None], bias, groups=5).transpose(1, 2)
    assert_same(naive_causal_conv1d(x, weight, bias, tail), [expected, padded[:, -3:]], 1e-12)


def test_causal_conv1d_gradcheck() -> None:
    assert torch.autograd.gradcheck(shifted_causal_conv1d, [x.requires_grad_() for x in make_inputs(3)])


def test_causal_conv1d_of_two_parts_equals_the_whole() -> None:
    x, weight, bias, tail = make_inputs(8)
    whole, last = causal_conv1d(x, weight, bias, tail)
    for cut in (1, 2, 5, 7):
        first, middle = causal_conv1d(x[:, :cut], weight, bias, tail)
        second, end = causal_conv1d(x[:, cut:], weight, bias, middle)
        assert_same([torch.cat([first, second], dim=1), end], [whole, last], 1e-12)


def test_causal_conv1d_tail_does_not_keep_the_input_in_memory() -> None:
    x, weight, bias, tail = make_inputs(50)
    _, after = causal_conv1d(x, weight, bias, tail)
    assert after.untyped_storage().nbytes() == after.nbytes


@each_case("T", [1, 6])
def test_causal_conv1d_keeps_the_dtype_of_the_input(T: int) -> None:
    x, weight, bias, _ = make_inputs(T, torch.float32)
    y, tail = causal_conv1d(x.bfloat16(), weight, bias)
    assert y.dtype == tail.dtype == torch.bfloat16
    assert_same([y.float()], [naive_causal_conv1d(x.bfloat16().float(), weight, bias)[0]], 3e-2)


def test_causal_conv1d_operator_passes_opcheck() -> None:
    x, weight, _, _ = make_inputs(6)
    arguments = [v.detach().contiguous().requires_grad_() for v in (x, weight.t())]
    torch.library.opcheck(torch.ops.lmzoo.causal_conv1d, arguments)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_causal_conv1d_compiles_in_one_graph(backend: str) -> None:
    inputs = make_inputs(6)
    compiled = torch.compile(causal_conv1d, fullgraph=True, backend=backend)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(naive_causal_conv1d, inputs), 1e-10)


def test_causal_conv1d_flops_are_counted() -> None:
    inputs = [x.requires_grad_() for x in make_inputs(6)]
    with FlopCounterMode(display=False) as counter:
        y, _ = shifted_causal_conv1d(*inputs)
        forward = counter.get_total_flops()
        y.sum().backward()
    assert forward == 2 * 2 * 6 * 5 * 4
    assert counter.get_total_flops() == 3 * forward


@each_case("T", [1, SHORTEST_SHIFTED - 1, SHORTEST_SHIFTED])
def test_causal_conv1d_counts_as_its_definition(T: int) -> None:
    with FlopCounter() as counter:
        causal_conv1d(torch.randn(2, T, 3), torch.randn(3, 4))
    assert counter.get_total_flops() == 2 * 2 * T * 3 * 4
