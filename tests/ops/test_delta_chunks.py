"""Tests the operator of the delta rule in chunks against the definitions, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops import chunks
from lmzoo.ops import delta_chunks as module
from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.delta_chunks import CHUNK_LENGTH as C
from lmzoo.ops.delta_chunks import LONGEST_SINGLE, chunk_length, delta_chunks
from lmzoo.ops.delta_rule import naive_delta_rule
from lmzoo.ops.gated_delta_rule import naive_gated_delta_rule
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

B, H, K, V = 2, 3, 4, 5
DECAYS = ("", "mixed", "strong", "weak", "infinite")  # "" has none


def definition(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, log_decay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    if log_decay is None:
        return naive_delta_rule(q, k, v, beta, state)
    return naive_gated_delta_rule(q, k, v, beta, log_decay[..., None], state)


def in_chunks(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, log_decay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The operator, with its arguments in the order of the definition."""
    return delta_chunks(q, k, v, beta, log_decay, state)


def make_inputs(T: int, decays: str = "mixed", dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns q, unit keys, v, betas from 0 to 2, a memory and, unless `decays` is empty, log decays."""
    draw = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    key, beta = F.normalize(normal(B, T, H, K), dim=-1), 2 * torch.rand(B, T, H, generator=draw, dtype=torch.float64)
    beta[:, ::5] = 0.0
    log_decay = -normal(B, T, H).exp() * {"strong": 60.0, "weak": 1e-3}.get(decays, 1.0)
    if decays == "infinite":
        log_decay[:, 1::3] = -math.inf
    inputs = [normal(B, T, H, K), key, normal(B, T, H, V), beta, normal(B, H, K, V), log_decay]
    return [x.to(dtype) for x in (inputs if decays else inputs[:-1])]


@each_case("decays", DECAYS)
@each_case("T", [1, C, LONGEST_SINGLE, LONGEST_SINGLE + 1, 3 * C - 1, 3 * C, 4 * C + 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_delta_chunks_is_the_definition(T: int, decays: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, decays, dtype)
    actual = values_and_gradients(in_chunks, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(definition, inputs), tolerance)


def test_chunk_length_is_larger_for_large_memories_and_all_of_a_short_sequence() -> None:
    assert chunk_length(LONGEST_SINGLE, 64, 64) == chunk_length(LONGEST_SINGLE, 8, 8) == LONGEST_SINGLE
    assert (chunk_length(100, 64, 63), chunk_length(100, 64, 64)) == (C, 2 * C)


def test_delta_chunks_with_large_memories_is_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(5 * C)
    monkeypatch.setattr(module, "LARGE", K * V)
    assert_same(values_and_gradients(in_chunks, inputs), values_and_gradients(definition, inputs), 1e-10)


@pytest.mark.parametrize("decays", ["", "mixed"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_delta_chunks_does_not_depend_on_the_tiles(monkeypatch: pytest.MonkeyPatch, decays: str, size: int) -> None:
    inputs = make_inputs(7 * C, decays)
    expected = values_and_gradients(in_chunks, inputs)
    monkeypatch.setattr(chunks, "TILE", size * B * H * C * V)
    assert_same(values_and_gradients(in_chunks, inputs), expected, 1e-12)


@each_case("decays", ["", "mixed"])
@each_case("output", [0, 1])
def test_delta_chunks_gradient_of_one_output_alone(output: int, decays: str) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(3 * C, decays)]
    grads = [
        torch.autograd.grad(form(*inputs)[output].square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for form in (in_chunks, definition)
    ]
    assert_same(grads[0], grads[1], 1e-10)


@each_case("T", [1, 3 * C])
def test_delta_chunks_leaves_its_inputs_and_what_it_saved_as_they_are(T: int) -> None:
    inputs = make_inputs(T)
    leaves = [x.clone().requires_grad_() for x in inputs]
    y, last = in_chunks(*leaves)
    total = y.sum() + last.square().sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert_same(torch.autograd.grad(total, leaves), first, 0)
    assert_same([x.detach() for x in leaves], inputs, 0)


def test_delta_chunks_gradient_reaches_a_first_call_through_the_memory() -> None:
    cut = 2 * C + 5

    def in_two_calls(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, beta, state, log_decay = inputs
        first, state = delta_chunks(q[:, :cut], k[:, :cut], v[:, :cut], beta[:, :cut], log_decay[:, :cut], state)
        second, state = delta_chunks(q[:, cut:], k[:, cut:], v[:, cut:], beta[:, cut:], log_decay[:, cut:], state)
        return torch.cat([first, second], dim=1), state

    inputs = make_inputs(5 * C)
    assert_same(values_and_gradients(in_two_calls, inputs), values_and_gradients(definition, inputs), 1e-10)


def test_delta_chunks_of_views_is_that_of_copies() -> None:
    inputs = make_inputs(3 * C)
    views = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert_same(values_and_gradients(in_chunks, views), values_and_gradients(in_chunks, inputs), 1e-12)


def test_delta_chunks_holds_for_long_sequences_in_float32() -> None:
    """The gradient of the decays is a sum over all later positions."""
    inputs = make_inputs(40 * C, "weak", torch.float32)
    assert_same(values_and_gradients(in_chunks, inputs), values_and_gradients(definition, inputs), 2e-5)


def test_delta_chunks_of_no_rows() -> None:
    y, last = in_chunks(*(x[:0] for x in make_inputs(3 * C)))
    assert (y.shape, last.shape) == ((0, 3 * C, H, V), (0, H, K, V))


@each_case("decays", ["", "mixed"])
def test_delta_chunks_compiles_in_one_graph(decays: str) -> None:
    inputs = make_inputs(2 * C + 1, decays)
    compiled = torch.compile(in_chunks, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(definition, inputs), 1e-10)


@each_case("decays", ["", "mixed"])
def test_delta_chunks_counts_as_its_definition(decays: str) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(3 * C, decays)]
    with FlopCounter() as counter:
        y, _ = in_chunks(*inputs)
        y.sum().backward()
    assert counter.get_total_flops() == 3 * 6 * B * 3 * C * H * K * V
