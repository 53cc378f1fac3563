"""Tests the operator of linear attention in chunks against the definition, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.ops import chunks
from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.linear_chunks import CHUNK_LENGTH as C
from lmzoo.ops.linear_chunks import linear_chunks
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

B, H, K, V = 2, 6, 4, 5
DECAYS = ("", "mixed", "strong", "weak", "infinite")  # "" has none
GROUPS = (1, 2, H)


def definition(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another, with the queries and keys of a group repeated for each of its heads."""
    q, k = (x.repeat_interleave(H // q.shape[2], dim=2) for x in (q, k))
    ys = []
    for t in range(q.shape[1]):
        if log_decay is not None:
            state = log_decay[:, t].exp()[..., None, None] * state
        state = state + k[:, t, :, :, None] * v[:, t, :, None, :]
        ys.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(ys, dim=1), state


def in_chunks(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The operator, with its arguments in the order of the definition."""
    return linear_chunks(q, k, v, log_decay, state)


def make_inputs(T: int, decays: str = "mixed", G: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns q and k of G groups, v, a memory and, unless `decays` is empty, log decays."""
    draw = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    log_decay = -normal(B, T, H).exp() * {"strong": 60.0, "weak": 1e-3}.get(decays, 1.0)
    if decays == "infinite":
        log_decay[:, 1::3] = -math.inf
    inputs = [normal(B, T, G, K), normal(B, T, G, K), normal(B, T, H, V), normal(B, H, K, V), log_decay]
    return [x.to(dtype) for x in (inputs if decays else inputs[:-1])]


@each_case("decays", DECAYS)
@each_case("T", [1, C - 1, C, C + 1, 3 * C + 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_linear_chunks_is_the_definition(T: int, decays: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = make_inputs(T, decays, dtype=dtype)
    actual = values_and_gradients(in_chunks, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(definition, inputs), tolerance)


@pytest.mark.parametrize("decays", ["", "mixed"])
@pytest.mark.parametrize("G", GROUPS)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_linear_chunks_depends_neither_on_groups_nor_on_tiles(
    monkeypatch: pytest.MonkeyPatch, size: int, G: int, decays: str
) -> None:
    inputs = make_inputs(5 * C, decays, G)
    monkeypatch.setattr(chunks, "TILE", size * B * C * H * V)
    assert_same(values_and_gradients(in_chunks, inputs), values_and_gradients(definition, inputs), 1e-12)


@each_case("decays", ["", "mixed"])
@each_case("output", [0, 1])
def test_linear_chunks_gradient_of_one_output_alone(output: int, decays: str) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(3 * C, decays)]
    grads = [
        torch.autograd.grad(form(*inputs)[output].square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for form in (in_chunks, definition)
    ]
    assert_same(grads[0], grads[1], 1e-10)


@each_case("T", [1, 3 * C])
def test_linear_chunks_leaves_its_inputs_and_what_it_saved_as_they_are(T: int) -> None:
    inputs = make_inputs(T)
    leaves = [x.clone().requires_grad_() for x in inputs]
    y, last = in_chunks(*leaves)
    total = y.sum() + last.square().sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert_same(torch.autograd.grad(total, leaves), first, 0)
    assert_same([x.detach() for x in leaves], inputs, 0)


def test_linear_chunks_gradient_reaches_a_first_call_through_the_memory() -> None:
    cut = C + 5

    def in_two_calls(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, state, log_decay = inputs
        first, state = linear_chunks(q[:, :cut], k[:, :cut], v[:, :cut], log_decay[:, :cut], state)
        second, state = linear_chunks(q[:, cut:], k[:, cut:], v[:, cut:], log_decay[:, cut:], state)
        return torch.cat([first, second], dim=1), state

    inputs = make_inputs(3 * C)
    assert_same(values_and_gradients(in_two_calls, inputs), values_and_gradients(definition, inputs), 1e-10)


@each_case("G", GROUPS)
def test_linear_chunks_of_views_is_that_of_copies(G: int) -> None:
    inputs = make_inputs(2 * C, "mixed", G)
    views = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert_same(values_and_gradients(in_chunks, views), values_and_gradients(in_chunks, inputs), 1e-12)


def test_linear_chunks_holds_for_long_sequences_in_float32() -> None:
    """The gradient of the decays is a sum over all later positions."""
    inputs = make_inputs(20 * C, "weak", dtype=torch.float32)
    assert_same(values_and_gradients(in_chunks, inputs), values_and_gradients(definition, inputs), 1e-5)


def test_linear_chunks_of_no_rows() -> None:
    y, last = in_chunks(*(x[:0] for x in make_inputs(3 * C)))
    assert (y.shape, last.shape) == ((0, 3 * C, H, V), (0, H, K, V))


@each_case("decays", ["", "mixed"])
def test_linear_chunks_compiles_in_one_graph(decays: str) -> None:
    inputs = make_inputs(C + 1, decays)
    compiled = torch.compile(in_chunks, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(definition, inputs), 1e-10)


@each_case("decays", ["", "mixed"])
def test_linear_chunks_counts_as_its_definition(decays: str) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(2 * C, decays)]
    with FlopCounter() as counter:
        y, _ = in_chunks(*inputs)
        y.sum().backward()
    assert counter.get_total_flops() == 3 * 4 * B * 2 * C * H * K * V
