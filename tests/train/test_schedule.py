"""Tests the learning rate at the steps that show the form of each schedule."""

from __future__ import annotations

import pytest

from lmzoo.train.config import TrainConfig
from lmzoo.train.schedule import learning_rate


def rates(**settings: object) -> list[float]:
    config = TrainConfig(steps=101, learning_rate=1.0, min_learning_rate=0.1, **settings)  # type: ignore[arg-type]
    return [learning_rate(step, config.resolved()) for step in range(101)]


def test_learning_rate_warms_up_linearly_and_is_never_zero() -> None:
    assert rates(warmup_steps=4)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_learning_rate_cosine() -> None:
    all_rates = rates(warmup_steps=0)
    assert [all_rates[step] for step in (0, 25, 50, 75, 100)] == pytest.approx([1.0, 0.868198, 0.55, 0.231802, 0.1])


def test_learning_rate_wsd_stays_and_then_falls_linearly() -> None:
    all_rates = rates(warmup_steps=10, schedule="wsd")
    assert all_rates[10:82] == [1.0] * 72
    assert [all_rates[step] for step in (86, 91, 100)] == pytest.approx([1 - 0.9 * 5 / 19, 1 - 0.9 * 10 / 19, 0.1])


@pytest.mark.parametrize("steps", [2, 3, 5, 7, 8])
def test_learning_rate_wsd_decays_in_a_short_run(steps: int) -> None:
    config = TrainConfig(steps=steps, learning_rate=1.0, min_learning_rate=0.1, warmup_steps=0, schedule="wsd")
    short = [learning_rate(step, config.resolved()) for step in range(steps)]
    assert short == pytest.approx([1.0] * (steps - 1) + [0.1])


def test_learning_rate_linear() -> None:
    all_rates = rates(warmup_steps=10, schedule="linear")
    assert all_rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert [all_rates[step] for step in (28, 55, 100)] == pytest.approx([0.82, 0.55, 0.1])


def test_learning_rate_constant() -> None:
    assert rates(warmup_steps=2, schedule="constant")[2:] == [1.0] * 99


def test_learning_rate_of_a_run_of_one_step() -> None:
    config = TrainConfig(steps=1, learning_rate=1.0)
    assert learning_rate(0, config.resolved()) == 1.0
