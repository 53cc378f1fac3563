"""Tests of the falling loss of a puzzle."""

from __future__ import annotations

from lmzoo.puzzles.training import falling_loss


def test_falling_loss_yields_means_and_is_the_same_in_every_run() -> None:
    one, other = (list(falling_loss("bigram", steps=6, shown=n)) for n in (1, 3))
    assert [step for step, _ in other] == [3, 6]
    for number, (_, mean) in enumerate(other):
        assert mean == sum(loss for _, loss in one[3 * number :][:3]) / 3
    assert list(falling_loss("bigram", steps=3, shown=3)) == other[:1]
