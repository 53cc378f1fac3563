"""Tests the chunked memory with decays against its definition, values and gradients."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops import chunks
from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.decayed_memory import CHUNK_LENGTH as C
from lmzoo.ops.decayed_memory import decayed_memory
from tests.cases import each_case
from tests.ops.scans import Scan, assert_same, values_and_gradients

B, H, K, V = 2, 3, 4, 5
KINDS = ("", "a", "ab", "late")  # which of the optional inputs are there; late: a, which reads the decayed memory


def naive_decayed_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    a_reads_decayed: bool = False,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    ys = []
    for t in range(q.shape[1]):
        new = k[:, t, :, :, None] * v[:, t, :, None, :]
        if a is not None:
            seen = log_decay[:, t].exp()[..., None] * state if a_reads_decayed else state
            read = torch.einsum("bhk,bhkv->bhv", a[:, t], seen)
            new = new + torch.einsum("bhk,bhv->bhkv", k[:, t] if b is None else b[:, t], read)
        state = log_decay[:, t].exp()[..., None] * state + new
        ys.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(ys, dim=1), state


def forms(kind: str) -> tuple[Scan, Scan]:
    """Returns the operator and the definition."""
    late = kind == "late"
    return partial(decayed_memory, a_reads_decayed=late), partial(naive_decayed_memory, a_reads_decayed=late)


def make_inputs(T: int, kind: str, decays: str = "mixed", dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Returns q, k, v, log decays, a memory, and a and b of one key, so that the memory stays bounded."""
    draw = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    key, strength = F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, 1).sigmoid()
    log_decay = -normal(B, T, H, K).exp() * {"strong": 60.0, "weak": 1e-3}.get(decays, 1.0)
    if decays == "infinite":
        log_decay[:, 1::3] = -math.inf
    k, a, b = (key * strength if kind in ("a", "late") else normal(B, T, H, K)), -key, key * strength
    inputs = [normal(B, T, H, K), k, normal(B, T, H, V), log_decay, normal(B, H, K, V), a, b]
    return [x.to(dtype) for x in inputs[: 5 + len(kind.replace("late", "a"))]]


@each_case("decays", ["mixed", "strong", "weak", "infinite"])
@each_case("kind", KINDS)
@each_case("T", [1, C - 1, C, C + 1, 3 * C + 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_decayed_memory_is_the_definition(T: int, kind: str, decays: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs, (operator, definition) = make_inputs(T, kind, decays, dtype), forms(kind)
    actual = values_and_gradients(operator, inputs)
    assert all(x.isfinite().all() for x in actual)
    assert_same(actual, values_and_gradients(definition, inputs), tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_decayed_memory_does_not_depend_on_the_tiles(monkeypatch: pytest.MonkeyPatch, kind: str, size: int) -> None:
    inputs, (operator, _) = make_inputs(5 * C, kind), forms(kind)
    expected = values_and_gradients(operator, inputs)
    monkeypatch.setattr(chunks, "TILE", size * B * H * C * V)
    assert_same(values_and_gradients(operator, inputs), expected, 1e-12)


@each_case("kind", KINDS)
@each_case("output", [0, 1])
def test_decayed_memory_gradient_of_one_output_alone(output: int, kind: str) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(C + 1, kind)]
    grads = [
        torch.autograd.grad(form(*inputs)[output].square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for form in forms(kind)
    ]
    assert_same(grads[0], grads[1], 1e-10)


@each_case("kind", KINDS)
@each_case("T", [1, 3 * C])
def test_decayed_memory_leaves_its_inputs_and_what_it_saved_as_they_are(T: int, kind: str) -> None:
    inputs, (operator, _) = make_inputs(T, kind), forms(kind)
    leaves = [x.clone().requires_grad_() for x in inputs]
    y, last = operator(*leaves)
    total = y.sum() + last.square().sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert_same(torch.autograd.grad(total, leaves), first, 0)
    assert_same([x.detach() for x in leaves], inputs, 0)


def test_decayed_memory_computes_tiles_with_strong_decays_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "TILE", B * H * C * V)
    inputs = make_inputs(3 * C, "ab", "weak", torch.float32)
    inputs[3][:, C : 2 * C] = -5.0
    operator, definition = forms("ab")
    assert_same(values_and_gradients(operator, inputs), values_and_gradients(definition, inputs), 1e-5)


def test_decayed_memory_of_no_rows() -> None:
    y, last = decayed_memory(*(x[:0] for x in make_inputs(2 * C, "ab")))
    assert (y.shape, last.shape) == ((0, 2 * C, H, V), (0, H, K, V))


def test_decayed_memory_holds_for_long_sequences_in_float32() -> None:
    """The gradient of the decays is a sum over all later positions."""
    inputs = make_inputs(40 * C, "ab", "weak", torch.float32)
    actual = values_and_gradients(decayed_memory, inputs)
    assert_same(actual, values_and_gradients(naive_decayed_memory, inputs), 1e-5)


@each_case("kind", KINDS)
def test_decayed_memory_compiles_in_one_graph(kind: str) -> None:
    inputs, (operator, definition) = make_inputs(C + 1, kind), forms(kind)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_same(values_and_gradients(compiled, inputs), values_and_gradients(definition, inputs), 1e-10)


@pytest.mark.parametrize(("kind", "products"), [("", 2), ("a", 3), ("ab", 4)])
def test_decayed_memory_counts_as_its_definition(kind: str, products: int) -> None:
    inputs = [x.requires_grad_() for x in make_inputs(2 * C, kind)]
    with FlopCounter() as counter:
        y, _ = decayed_memory(*inputs)
        y.sum().backward()
    assert counter.get_total_flops() == 3 * products * 2 * B * 2 * C * H * K * V
