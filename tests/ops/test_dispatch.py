"""Tests the choice between the forms of an algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.ops.delta_rule import SHORTEST_CHUNKED, chunked_delta_rule, delta_rule, naive_delta_rule
from lmzoo.ops.dispatch import Choice, dispatch, watch


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


def test_watch_sees_choices_and_arguments_of_its_block_only() -> None:
    seen: list[tuple[Choice, tuple[Tensor, ...]]] = []
    inputs = [torch.randn(1, SHORTEST_CHUNKED, 2, 3) for _ in range(3)] + [torch.rand(1, SHORTEST_CHUNKED, 2)]
    expected = delta_rule(*inputs)
    with watch(lambda choice, args: seen.append((choice, args))):
        watched = delta_rule(*inputs)
    delta_rule(*inputs)
    ((choice, args),) = seen
    assert choice == (naive_delta_rule, chunked_delta_rule, SHORTEST_CHUNKED)
    assert all(got is given for got, given in zip(args, inputs, strict=False))
    assert torch.equal(watched[0], expected[0])
