"""Tests of what all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from lmzoo.data.probes.task import TEST_ROWS, Task, distinct, no_questions
from lmzoo.losses import IGNORE_INDEX


@dataclass(frozen=True)
class Guess(Task):
    """A task of random bits, whose best rule is right half of the time."""

    vocab_size = 2

    def draw(self, generator: torch.Generator, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randint(2, (rows, length), generator=generator), no_questions(rows, length)

    def chance(self, length: int) -> float:
        return 0.25

    def best(self, length: int) -> float:
        return 0.5


def test_task_is_solved_near_its_best_accuracy() -> None:
    assert Guess().solved(7) == pytest.approx(0.495)
    assert Guess().parts() == {}


def test_task_tests_every_model_on_the_same_rows() -> None:
    torch.manual_seed(1)
    first, _ = Guess().test_rows(9)
    torch.manual_seed(2)
    again, _ = Guess().test_rows(9)
    assert first.shape == (TEST_ROWS, 9)
    assert torch.equal(first, again)


def test_no_questions_are_ignored_by_the_loss() -> None:
    assert no_questions(2, 3).tolist() == [[IGNORE_INDEX] * 3] * 2


def test_distinct_draws_different_integers_in_random_order() -> None:
    drawn = distinct(torch.Generator().manual_seed(0), 4000, 5, 9, 3)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    for column in drawn.T:
        shares = torch.bincount(column, minlength=9)[5:] / 4000
        assert shares.sub(0.25).abs().max() < 0.04
    assert (drawn >= 5).all()
