"""Tests of the chunked linear cross-entropy against its definition: values, gradients, precision, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.hardware import peak_resident
from lmzoo.ops.linear_cross_entropy import chunked_linear_cross_entropy, naive_linear_cross_entropy
from tests.cases import each_case

N, D, V, IGNORED = 11, 4, 7, -100


def case(ignored: int = 0, *, bias: bool = True, dtype: torch.dtype = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(ignored)
    x, weight = (torch.randn(n, D, generator=generator, dtype=dtype).requires_grad_() for n in (N, V))
    bias_V = torch.randn(V, generator=generator, dtype=dtype).requires_grad_() if bias else None
    targets = torch.randint(V, (N,), generator=generator)
    targets[torch.randperm(N, generator=generator)[:ignored]] = IGNORED
    return [x, weight, bias_V, targets, IGNORED]


def value_and_gradients(total: Tensor, arguments: list[Any]) -> tuple[Tensor, ...]:
    wanted = [value for value in arguments[:3] if value is not None]
    return (total.detach(), *torch.autograd.grad(total * 3, wanted))


@each_case("bias", [True, False])
@pytest.mark.parametrize("ignored", [0, 4, N])
@pytest.mark.parametrize("chunk", [1, 5, 10, 11, 12])
def test_linear_cross_entropy_equals_the_definition(chunk: int, ignored: int, bias: bool) -> None:
    arguments = case(ignored, bias=bias)
    expected = value_and_gradients(naive_linear_cross_entropy(*arguments), arguments)
    actual = value_and_gradients(chunked_linear_cross_entropy(*arguments, chunk), arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(chunked_linear_cross_entropy(*arguments, chunk), expected[0])


def test_linear_cross_entropy_gradcheck() -> None:
    arguments = case(3)
    inputs = tuple(arguments[:3])
    assert torch.autograd.gradcheck(lambda *xs: chunked_linear_cross_entropy(*xs, *arguments[3:], 4), inputs)


def test_linear_cross_entropy_of_a_certain_prediction_is_finite() -> None:
    """The probability of the target underflows to zero in float32, but its logarithm is finite."""
    x, weight = torch.eye(2) * 300, torch.eye(2).requires_grad_()
    for targets, expected in (([1, 0], 600.0), ([0, 1], 0.0)):
        total = chunked_linear_cross_entropy(x, weight, None, torch.tensor(targets), IGNORED, 1)
        assert total.item() == expected
        assert torch.isfinite(torch.autograd.grad(total, weight)[0]).all()


def test_linear_cross_entropy_with_frozen_inputs() -> None:
    for frozen in range(3):
        arguments = case()
        arguments[frozen] = arguments[frozen].detach()
        wanted = [value for value in arguments[:3] if value.requires_grad]
        actual = torch.autograd.grad(chunked_linear_cross_entropy(*arguments, 4), wanted)
        torch.testing.assert_close(actual, torch.autograd.grad(naive_linear_cross_entropy(*arguments), wanted))


def test_linear_cross_entropy_multiplies_in_bfloat16_and_sums_in_float32() -> None:
    """The error is not larger than with a linear layer under autocast and a float32 loss."""
    arguments = case(2, dtype=torch.float32)
    exact = value_and_gradients(naive_linear_cross_entropy(*arguments), arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = naive_linear_cross_entropy(*arguments)
        chunked = chunked_linear_cross_entropy(*arguments, 4)
    assert chunked.dtype == torch.float32
    assert chunked.item() != exact[0].item()
    theirs, ours = (value_and_gradients(total, arguments) for total in (plain, chunked))
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == true.dtype
        assert (mine - true).norm() <= 1.5 * (other - true).norm() + 1e-6
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=5e-2)


def test_linear_cross_entropy_refuses_double_backward() -> None:
    arguments = case()
    total = chunked_linear_cross_entropy(*arguments, 4)
    with pytest.raises(RuntimeError, match="can be differentiated once, not twice"):
        torch.autograd.grad(total, arguments[0], create_graph=True)


def test_linear_cross_entropy_backward_twice_with_retain_graph() -> None:
    arguments = case()
    total = chunked_linear_cross_entropy(*arguments, 4)
    first, again = (torch.autograd.grad(total, arguments[:3], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_linear_cross_entropy_needs_memory_for_one_chunk() -> None:
    """All logits have 41 MB: the plain loss stores them three times, the chunked loss stores 16 rows."""
    x, weight = (torch.randn(n, 16).requires_grad_() for n in (512, 20_000))
    rest = (None, torch.randint(20_000, (512,)), IGNORED)
    peaks: list[int | None] = []
    for _ in range(2):  # the first run also loads the kernels
        for call in (naive_linear_cross_entropy, chunked_linear_cross_entropy):
            size = (16,) if call is chunked_linear_cross_entropy else ()
            peaks.append(peak_resident(lambda call=call, size=size: call(x, weight, *rest, *size).backward()))
            x.grad = weight.grad = None
    plain, chunked = peaks[2:]
    if plain is not None and chunked is not None:  # only where the system reports it
        assert plain > 80e6
        assert chunked < plain / 4


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_linear_cross_entropy_compiles_in_one_graph(backend: str) -> None:
    arguments = case(2)

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return chunked_linear_cross_entropy(x, weight, bias, *arguments[3:], 4)

    compiled: Callable[..., Tensor] = torch.compile(loss, fullgraph=True, backend=backend)
    actual = value_and_gradients(compiled(*arguments[:3]), arguments)
    torch.testing.assert_close(actual, value_and_gradients(loss(*arguments[:3]), arguments))
    torch.library.opcheck(
        torch.ops.lmzoo.linear_cross_entropy.default, (*arguments, 4, torch.float64, True), raise_exception=True
    )


def test_linear_cross_entropy_counts_three_products() -> None:
    arguments = case(bias=False)
    counts = []
    for call in (lambda: naive_linear_cross_entropy(*arguments), lambda: chunked_linear_cross_entropy(*arguments, 4)):
        with FlopCounterMode(display=False) as counter:
            call().backward()
        counts.append(counter.get_total_flops())
    assert counts == [6 * N * D * V] * 2
