"""Tests the experts' fast forms against their definition: values, gradients, precision, compilation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lmzoo.ops.counting import FlopCounter
from lmzoo.ops.experts import (
    Biases,
    expert_mlp,
    gathered_expert_mlp,
    grouped_expert_mlp,
    naive_expert_mlp,
)
from tests.cases import each_case
from tests.ops.scans import assert_same, values_and_gradients

Form = Callable[..., Tensor]
D, K, E, WIDTH = 4, 2, 6, 3


def make_inputs(N: int, dtype: torch.dtype = torch.float64, unchosen: int = 5) -> tuple[Tensor, list[Tensor]]:
    """Returns the experts of each token, never `unchosen`, and (x, weights, up, down)."""
    draw = torch.Generator().manual_seed(N)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    scores = normal(N, E)
    scores[:, unchosen] = -torch.inf
    indices = scores.argsort(dim=-1, descending=True)[:, :K]
    inputs = [normal(N, D), normal(N, K).softmax(-1), normal(E, 2 * WIDTH, D), normal(E, D, WIDTH)]
    return indices, [x.to(dtype) for x in inputs]


def values_and_gradients_of(form: Form, indices: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    def run(x: Tensor, weights: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor]:
        return (form(x, indices, weights, up, down),)

    return values_and_gradients(run, inputs)


@each_case("N", [1, 2, 3, 17])
@pytest.mark.parametrize("form", [grouped_expert_mlp, gathered_expert_mlp, expert_mlp])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_expert_mlp_is_the_naive_one(N: int, form: Form, dtype: torch.dtype, tolerance: float) -> None:
    indices, inputs = make_inputs(N, dtype)
    actual = values_and_gradients_of(form, indices, inputs)
    assert_same(actual, values_and_gradients_of(naive_expert_mlp, indices, inputs), tolerance)


def test_naive_expert_mlp_by_hand() -> None:
    """Two experts of one hidden feature with weights 0.25 and 0.75; the gate comes first."""
    up = torch.tensor([[[2.0], [3.0]], [[-1.0], [5.0]], [[7.0], [7.0]]])
    down = torch.tensor([[[1.0]], [[10.0]], [[7.0]]])
    arguments = (torch.tensor([[2.0]]), torch.tensor([[1, 0]]), torch.tensor([[0.25, 0.75]]), up, down)
    y = naive_expert_mlp(*arguments, lambda gate, up: gate.abs() * up)
    assert y.item() == 0.25 * 10 * 2 * 10 + 0.75 * 1 * 4 * 6
    biases = Biases(torch.tensor([[1.0, 2.0], [-1.0, 3.0], [7.0, 7.0]]), torch.tensor([[5.0], [6.0], [7.0]]))
    y = naive_expert_mlp(*arguments, lambda gate, up: gate.abs() * up, biases)
    assert y.item() == 0.25 * (10 * 3 * 13 + 6) + 0.75 * (1 * 5 * 8 + 5)


@pytest.mark.parametrize("form", [grouped_expert_mlp, gathered_expert_mlp, expert_mlp])
def test_expert_mlp_with_biases_is_the_naive_one(form: Form) -> None:
    indices, inputs = make_inputs(5)
    draw = torch.Generator().manual_seed(1)
    inputs += [torch.randn(E, width, generator=draw, dtype=torch.float64) for width in (2 * WIDTH, D)]

    def run(form: Form) -> list[Tensor]:
        def biased(x: Tensor, weights: Tensor, up: Tensor, down: Tensor, *biases: Tensor) -> tuple[Tensor]:
            return (form(x, indices, weights, up, down, torch.maximum, Biases(*biases)),)

        return values_and_gradients(biased, inputs)

    assert_same(run(form), run(naive_expert_mlp), 1e-10)


@pytest.mark.parametrize("form", [naive_expert_mlp, grouped_expert_mlp, gathered_expert_mlp, expert_mlp])
def test_expert_mlp_without_gates_is_a_sum_of_plain_layers(form: Form) -> None:
    indices, (x, weights, up, down) = make_inputs(3)
    up = up[:, :WIDTH]
    with FlopCounter() as counter:
        y = form(x, indices, weights, up, down, torch.tanh)
    for n in range(3):
        each = [weights[n, k] * (down[e] @ torch.tanh(up[e] @ x[n])) for k, e in enumerate(indices[n])]
        torch.testing.assert_close(y[n], torch.stack(each).sum(0))
    if form is expert_mlp:
        assert counter.get_total_flops() == 4 * 3 * K * WIDTH * D


@pytest.mark.parametrize("form", [naive_expert_mlp, grouped_expert_mlp, gathered_expert_mlp, expert_mlp])
def test_expert_mlp_of_no_tokens_is_empty(form: Form) -> None:
    indices, inputs = make_inputs(0)
    y, *gradients = values_and_gradients_of(expert_mlp, indices, inputs)
    assert y.shape == (0, D)
    assert all(not gradient.any() for gradient in gradients)
    assert form(inputs[0], indices, *inputs[1:]).shape == (0, D)


@pytest.mark.parametrize("form", [grouped_expert_mlp, gathered_expert_mlp])
def test_expert_mlp_gives_no_gradient_to_an_unchosen_expert(form: Form) -> None:
    for unchosen in (0, 3, E - 1):
        indices, inputs = make_inputs(17, unchosen=unchosen)
        *_, grad_up, grad_down = values_and_gradients_of(form, indices, inputs)
        for gradient in (grad_up, grad_down):
            norms = gradient.flatten(1).norm(dim=1)
            assert norms[unchosen] == 0
            assert (norms > 0).sum() == E - 1


def test_expert_mlp_drops_no_token_when_all_choose_the_same_experts() -> None:
    _, inputs = make_inputs(17)
    indices = torch.tensor([[4, 1]]).expand(17, K)
    actual = values_and_gradients_of(expert_mlp, indices, inputs)
    assert_same(actual, values_and_gradients_of(naive_expert_mlp, indices, inputs), 1e-10)


def test_expert_mlp_of_a_token_does_not_depend_on_the_others() -> None:
    indices, (x, weights, up, down) = make_inputs(17)
    y = expert_mlp(x, indices, weights, up, down)
    alone = torch.cat([expert_mlp(x[n : n + 1], indices[n : n + 1], weights[n : n + 1], up, down) for n in range(17)])
    torch.testing.assert_close(alone, y, rtol=0, atol=1e-12)


def test_expert_mlp_is_deterministic() -> None:
    indices, inputs = make_inputs(100, torch.float32)
    first = values_and_gradients_of(expert_mlp, indices, inputs)
    assert_same(values_and_gradients_of(expert_mlp, indices, inputs), first, 0)


def test_expert_mlp_gradcheck() -> None:
    indices, inputs = make_inputs(3)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda x, *rest: expert_mlp(x, indices, *rest), leaves)


def test_expert_mlp_needs_no_gradient_of_frozen_inputs() -> None:
    indices, (x, weights, up, down) = make_inputs(5)
    x.requires_grad_()
    (got,) = torch.autograd.grad(expert_mlp(x, indices, weights, up, down).sum(), x)
    (want,) = torch.autograd.grad(naive_expert_mlp(x, indices, weights, up, down).sum(), x)
    assert_same([got], [want], 1e-12)


@pytest.mark.parametrize("form", [grouped_expert_mlp, gathered_expert_mlp])
def test_expert_mlp_follows_autocast_as_a_linear_layer_does(form: Form) -> None:
    indices, inputs = make_inputs(17, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = (values_and_gradients_of(f, indices, inputs) for f in (form, naive_expert_mlp))
    assert_same(actual, expected, 3e-2)  # products rounded to bfloat16, added up in another order
    exact = values_and_gradients_of(form, indices, inputs)
    assert all(got.dtype == torch.float32 for got in actual)
    assert not torch.equal(actual[0], exact[0]), "products are in bfloat16"


def test_expert_mlp_keeps_bfloat16() -> None:
    indices, inputs = make_inputs(17, torch.bfloat16)
    y = expert_mlp(inputs[0], indices, *inputs[1:])
    assert y.dtype == torch.bfloat16
    exact = naive_expert_mlp(inputs[0].double(), indices, *(x.double() for x in inputs[1:]))
    assert_same([y.double()], [exact], 3e-2)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@each_case("N", [1, E // K, 4, 17])
def test_expert_mlp_compiles_in_one_graph(N: int, backend: str) -> None:
    indices, inputs = make_inputs(N)

    def run(x: Tensor, indices: Tensor, weights: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return expert_mlp(x, indices, weights, up, down)

    compiled = torch.compile(run, fullgraph=True, backend=backend)
    actual = values_and_gradients_of(compiled, indices, inputs)
    assert_same(actual, values_and_gradients_of(naive_expert_mlp, indices, inputs), 1e-10)


def test_grouped_linear_keeps_the_rules_of_operators() -> None:
    _, (x, _, up, _) = make_inputs(7)
    ends = torch.tensor([0, 2, 2, 5, 7, 7])
    torch.library.opcheck(torch.ops.lmzoo.grouped_linear, (x.requires_grad_(), up.requires_grad_(), ends))


@each_case("N", [1, 3, 17])
def test_expert_mlp_counts_the_chosen_experts(N: int) -> None:
    indices, inputs = make_inputs(N)
    with FlopCounter() as counter:
        expert_mlp(inputs[0], indices, *inputs[1:])
    assert counter.get_total_flops() == N * 2 * K * 3 * WIDTH * D


def test_grouped_expert_mlp_is_counted_by_torch_forward_and_backward() -> None:
    indices, inputs = make_inputs(17)
    leaves = [x.requires_grad_() for x in inputs]
    with FlopCounterMode(display=False) as counter:
        y = grouped_expert_mlp(leaves[0], indices, *leaves[1:])
        forward = counter.get_total_flops()
        y.sum().backward()
    assert forward == 17 * 2 * K * 3 * WIDTH * D
    assert counter.get_total_flops() == 3 * forward
