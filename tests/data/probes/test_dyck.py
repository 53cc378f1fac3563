"""Tests of nested brackets against a stack."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lmzoo.data.probes.dyck import Dyck
from lmzoo.losses import IGNORE_INDEX


@pytest.mark.parametrize(("kinds", "depth"), [(1, 1), (2, 3), (8, 5)])
def test_dyck_is_well_nested_and_asks_what_closes_next(kinds: int, depth: int) -> None:
    idx, targets = Dyck(kinds, depth).draw(torch.Generator().manual_seed(0), 100, 60)
    deepest, opened, possible = 0, 0, 0
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        stack: list[tuple[int, int]] = []
        for at, token in enumerate(tokens):
            if token < kinds:
                possible, opened = possible + (0 < len(stack) < depth), opened + (0 < len(stack) < depth)
                stack.append((token, at))
            else:
                possible += len(stack) < depth
                kind, place = stack.pop()
                assert token == kinds + kind
                if at:
                    assert answers[at - 1] == (token if place < at - 1 else IGNORE_INDEX)
            deepest = max(deepest, len(stack))
            if at + 1 < len(tokens) and tokens[at + 1] < kinds:
                assert answers[at] == IGNORE_INDEX
        if answers[-1] != IGNORE_INDEX:  # the token after the last one closes a bracket
            kind, place = stack[-1]
            assert answers[-1] == kinds + kind
            assert place < len(tokens) - 1
    assert deepest == depth
    if possible:
        assert abs(opened / possible - 0.5) < 0.05


def test_dyck_answers_are_uniform_over_the_kinds() -> None:
    _, targets = Dyck(4, 3).draw(torch.Generator().manual_seed(0), 1000, 40)
    counts = Counter(targets[targets != IGNORE_INDEX].tolist())
    assert set(counts) == {4, 5, 6, 7}
    assert max(counts.values()) / sum(counts.values()) < Dyck(4, 3).chance(40) + 0.02
