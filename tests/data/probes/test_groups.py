"""Tests of the word problems against arithmetic and against permutations applied to lists."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from lmzoo.data.probes.groups import CyclicGroup, SymmetricGroup


@pytest.mark.parametrize("order", [2, 3, 10])
def test_cyclic_group_adds_modulo_its_order(order: int) -> None:
    idx, targets = CyclicGroup(order).draw(torch.Generator().manual_seed(0), 50, 17)
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        assert answers == [sum(tokens[: t + 1]) % order for t in range(17)]
    assert set(idx.flatten().tolist()) == set(range(order))


@pytest.mark.parametrize("degree", [3, 5])
def test_symmetric_group_moves_objects_as_its_permutations_do(degree: int) -> None:
    """Each token moves the object at place i to place p[i]; the answer is where all objects are after it."""
    elements = list(permutations(range(degree)))
    idx, targets = SymmetricGroup(degree).draw(torch.Generator().manual_seed(0), 40, 12)
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        place = list(range(degree))
        for token, answer in zip(tokens, answers, strict=True):
            place = [elements[token][at] for at in place]
            assert elements[answer] == tuple(place)
    assert SymmetricGroup(degree).vocab_size == len(elements)
    assert SymmetricGroup(degree).chance(12) == 1 / len(elements)


def test_symmetric_group_is_not_commutative() -> None:
    swap, cycle = 2, 3  # (1, 0, 2) and (1, 2, 0)
    both = torch.tensor([[swap, cycle], [cycle, swap]])
    first, second = SymmetricGroup(3).products(both)[:, 1].tolist()
    assert first != second
