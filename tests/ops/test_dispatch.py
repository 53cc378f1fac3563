"""Tests the choice between the forms of an algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.counting import counted_as
from lmzoo.ops.delta_rule import SHORTEST_CHUNKED, chunked_delta_rule, delta_rule, naive_delta_rule
from lmzoo.ops.dispatch import Choice, dispatch, watch
from lmzoo.ops.kernels import NO_KERNEL, Kernel


def naive_sum(x_T: Tensor) -> Tensor:
    return sum(x_T.unbind(), torch.zeros(()))


def fast_sum(x_T: Tensor) -> Tensor:
    return x_T.sum()


def test_dispatch_takes_the_fast_form_from_the_shortest_length_on() -> None:
    forms = [dispatch(T, naive_sum, fast_sum, shortest=3) for T in (1, 2, 3, 4)]
    assert forms == [naive_sum, naive_sum, fast_sum, fast_sum]


def test_choice_says_what_was_chosen_and_why() -> None:
    choice = Choice(naive_sum, fast_sum, 3)
    assert choice.name == "sum"
    assert choice.reason(2) == "T < 3: the loop needs fewer calls"
    assert choice.reason(3).startswith("T >= 3")


def test_dispatch_takes_a_kernel_at_any_length() -> None:
    for T in (1, 5):
        assert dispatch(T, naive_sum, fast_sum, shortest=3, kernel=Kernel(torch.sum, "it fits")) is torch.sum
        assert dispatch(T, naive_sum, fast_sum, shortest=3, kernel=Kernel(None, "T < 9")) in (naive_sum, fast_sum)


def test_dispatch_runs_a_kernel_between_two_graphs() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def rule(x_T: Tensor) -> Tensor:
        kernel = Kernel(torch.compiler.disable(fast_sum), "it fits")
        with counted_as(7):
            y = dispatch(4, naive_sum, fast_sum, shortest=3, kernel=kernel)(x_T + 1)
        return 2 * y

    assert torch.compile(rule, backend=count)(torch.ones(4)) == 16
    assert len(graphs) == 2


def test_choice_says_why_a_kernel_was_chosen_or_not() -> None:
    taken = Choice(naive_sum, fast_sum, 3, Kernel(torch.sum, "it fits"))
    assert (taken.form_name(2), taken.reason(2)) == ("kernel of sum", "it fits")
    refused = Choice(naive_sum, fast_sum, 3, Kernel(None, "no kernel: T < 9"))
    assert (refused.form_name(2), refused.form_name(3)) == ("naive_sum", "fast_sum")
    assert refused.reason(2) == "T < 3: the loop needs fewer calls; no kernel: T < 9"
    assert refused.reason(3) == "T >= 3: fewer steps, or cheaper ones; no kernel: T < 9"


def test_watch_sees_choices_and_arguments_of_its_block_only() -> None:
    seen: list[tuple[Choice, tuple[Tensor, ...]]] = []
    inputs = [torch.randn(1, SHORTEST_CHUNKED, 2, 3) for _ in range(3)] + [torch.rand(1, SHORTEST_CHUNKED, 2)]
    expected = delta_rule(*inputs)
    with watch(lambda choice, args: seen.append((choice, args))):
        watched = delta_rule(*inputs)
    delta_rule(*inputs)
    ((choice, args),) = seen
    assert choice == (naive_delta_rule, chunked_delta_rule, SHORTEST_CHUNKED, NO_KERNEL)
    assert all(got is given for got, given in zip(args, inputs, strict=False))
    assert torch.equal(watched[0], expected[0])
