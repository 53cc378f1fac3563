"""Tests of the recall probes: every answer is looked up in the sequence by a dictionary."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from lmzoo.data.probes.recall import AssociativeRecall, InductionHeads, Needle
from lmzoo.losses import IGNORE_INDEX


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("ids", "pairs", "length"), [(64, 4, 32), (40, 8, 32), (512, 16, 100)])
def test_associative_recall_asks_each_key_once_and_answers_with_its_value(ids: int, pairs: int, length: int) -> None:
    idx, targets = AssociativeRecall(ids, pairs).draw(seeded(), 200, length)
    assert idx.shape == targets.shape == (200, length)
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        memory = dict(zip(tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2], strict=True))
        assert len(memory) == len(set(memory.values())) == pairs
        assert all(1 <= key < ids // 2 <= value < ids for key, value in memory.items())
        asked = [at for at, answer in enumerate(answers) if answer != IGNORE_INDEX]
        assert {tokens[at] for at in asked} == set(memory)
        assert len(asked) == pairs
        assert all(answers[at] == memory[tokens[at]] and at >= 2 * pairs and at % 2 == 0 for at in asked)


def test_associative_recall_gaps_follow_the_power_law() -> None:
    """With one pair, the position of the question has the probabilities of the paper; later ones are rarer."""
    _, targets = AssociativeRecall(16, 1).draw(seeded(), 40_000, 42)
    gaps = Counter(((targets != IGNORE_INDEX).nonzero()[:, 1] // 2 - 1).tolist())
    weights = [(gap + 1) ** (0.01 - 1) for gap in range(20)]
    for gap, weight in enumerate(weights):
        expected = 40_000 * weight / sum(weights)
        assert abs(gaps[gap] - expected) < 5 * math.sqrt(expected)


def test_associative_recall_fills_with_any_id() -> None:
    idx, targets = AssociativeRecall(32, 4).draw(seeded(), 500, 32)
    filler = idx[:, 8:][targets[:, 8:] == IGNORE_INDEX]
    assert set(filler.tolist()) == set(range(32))


def test_induction_heads_repeats_what_followed_the_special_token() -> None:
    idx, targets = InductionHeads(5).draw(seeded(), 2000, 12)
    firsts = Counter[int]()
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        assert tokens.count(5) == 2
        assert tokens[-1] == 5
        assert answers[:-1] == [IGNORE_INDEX] * 11
        assert answers[-1] == tokens[tokens.index(5) + 1] < 5
        firsts[tokens.index(5)] += 1
    assert set(firsts) == set(range(10))


@pytest.mark.parametrize("needles", [1, 3, 7])
def test_needle_answers_the_last_key_with_the_token_after_its_first_occurrence(needles: int) -> None:
    task = Needle(needles)
    idx, targets = task.draw(seeded(), 500, 32)
    depths = Counter[int]()
    for tokens, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        keys = [token for token in tokens[:-1] if 16 <= token < 48]
        values = [token for token in tokens if 48 <= token < 80]
        assert len(set(keys)) == len(keys) == len(set(values)) == len(values) == needles
        at = tokens.index(tokens[-1])
        assert at < 31
        assert answers == [IGNORE_INDEX] * 31 + [tokens[at + 1]]
        depths[at] += 1
    assert set(depths) == set(range(0, 30, 2))


def test_needle_parts_lie_at_the_depth_of_their_name() -> None:
    found = {}
    for name, task in Needle(4).parts().items():
        idx, targets = task.draw(seeded(), 50, 64)
        first = {row.index(row[-1]) for row in idx.tolist()}
        assert len(first) == 1
        at = first.pop()
        assert (targets[:, -1] == idx[:, at + 1]).all()
        found[name] = at
    assert found == {"depth 0%": 0, "depth 25%": 16, "depth 50%": 30, "depth 75%": 44, "depth 100%": 60}


def test_chance_is_the_accuracy_of_a_guess_among_the_values_in_sight() -> None:
    assert AssociativeRecall(64, 4).chance(32) == 1 / 4
    assert InductionHeads(16).chance(32) == 1 / 16
    assert (Needle(1).chance(64), Needle(4).chance(64)) == (1 / 32, 1 / 4)
