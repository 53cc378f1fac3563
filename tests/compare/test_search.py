"""Tests which runs a search needs: one setting after another, wider grids, and halves that go on."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence

import pytest

from lmzoo.compare.search import Search, Trial, better_half
from lmzoo.compare.tune import Grid

RATES = Grid("learning_rate", (1.0, 2.0, 4.0))
WARMUPS = Grid("warmup_steps", (10.0, 20.0, 40.0, 80.0), (0, 250))
RUNGS = (250, 500, 1000)

Loss = Callable[[Trial], float]
Asked = list[list[tuple[tuple[float, ...], int]]]


def run(search: Search, loss: Loss, order: random.Random | None = None) -> Asked:
    """Make all trials in any order; returns the groups that were needed."""
    asked: Asked = []
    while trials := search.ready():
        asked.append([(trial.point, trial.steps) for trial in trials])
        for trial in order.sample(trials, len(trials)) if order else trials:
            assert trial in search.ready()
            search.take(trial, loss(trial))
    return asked


def distance(*best: float) -> Loss:
    """A loss that falls with the steps, and is the lowest at the point `best`."""
    return lambda trial: (
        sum(abs(math.log2((a + 1) / (b + 1))) for a, b in zip(trial.point, best, strict=True)) + (100 / trial.steps)
    )


def test_search_of_one_setting_tries_the_whole_grid_and_then_widens_it() -> None:
    search = Search([RATES], [1000])
    assert run(search, distance(9.0)) == [
        [((1.0,), 1000), ((2.0,), 1000), ((4.0,), 1000)],
        [((8.0,), 1000)],
        [((16.0,), 1000)],
    ]
    assert search.chosen == (8.0,)
    (stage,) = search.stages()
    assert (stage.values, stage.chosen, stage.at_end) == ([1.0, 2.0, 4.0, 8.0, 16.0], 8.0, False)


def test_search_of_several_settings_goes_on_from_the_best_values() -> None:
    search = Search([RATES, WARMUPS], [1000])
    assert run(search, distance(2.0, 40.0)) == [
        [((1.0, 20.0), 1000), ((2.0, 20.0), 1000), ((4.0, 20.0), 1000)],  # with the middle of the other grid
        [((2.0, 10.0), 1000), ((2.0, 40.0), 1000), ((2.0, 80.0), 1000)],  # one of the four was made before
    ]
    assert search.chosen == (2.0, 40.0)
    first, second = search.stages()
    assert (first.chosen, second.chosen) == (2.0, 40.0)
    assert second.values == [10.0, 20.0, 40.0, 80.0]


def test_search_with_halving_lets_the_better_half_go_on() -> None:
    search = Search([RATES], RUNGS)
    assert run(search, distance(2.8)) == [
        [((1.0,), 250), ((2.0,), 250), ((4.0,), 250)],
        [((2.0,), 500), ((4.0,), 500)],
        [((2.0,), 1000)],
    ]
    assert search.chosen == (2.0,)


def test_search_with_halving_widens_the_grid_in_the_first_part() -> None:
    search = Search([RATES], RUNGS)
    asked = run(search, distance(0.4))
    assert asked[:3] == [[((1.0,), 250), ((2.0,), 250), ((4.0,), 250)], [((0.5,), 250)], [((0.25,), 250)]]
    assert asked[3:] == [[((0.25,), 500), ((0.5,), 500), ((1.0,), 500)], [((0.25,), 1000), ((0.5,), 1000)]]
    assert search.chosen == (0.5,)


def test_search_with_halving_never_drops_what_is_trained_to_the_end() -> None:
    """The warm-up of the first search is bad in the second one after the first part, and still the best at the end."""

    def loss(trial: Trial) -> float:
        rate, warmup = trial.point
        return abs(rate - 2.0) + (warmup == 20.0) * (3.0 if trial.steps < 1000 else -3.0) + 100 / trial.steps

    search = Search([RATES, WARMUPS], RUNGS)
    asked = run(search, loss)
    assert ((2.0, 20.0), 1000) in asked[2]
    assert search.chosen == (2.0, 20.0)


@pytest.mark.parametrize("late", [False, True])
def test_search_replaces_a_run_that_diverges(late: bool) -> None:
    """With `late`, the better half diverges only after the first part: it counts as bad in all of them."""
    search = Search([RATES], RUNGS)
    best = distance(9.0)
    asked = run(search, lambda trial: math.inf if trial.point > (2.0,) and trial.steps > 250 * late else best(trial))
    assert search.chosen == (2.0,)
    assert all(point < (4.0,) for point, steps in itertools.chain(*asked) if steps == 1000)
    nothing = Search([RATES], RUNGS)
    asked = run(nothing, lambda trial: math.inf)
    assert asked[-1] == [((0.25,), 250)], "lower rates are tried, and nothing goes on"
    assert nothing.chosen == (0.25,)


@pytest.mark.parametrize("rungs", [[1000], RUNGS])
@pytest.mark.parametrize("seed", range(8))
def test_search_does_not_depend_on_the_order_in_which_runs_end(rungs: Sequence[int], seed: int) -> None:
    rng = random.Random(seed)
    losses: dict[Trial, float] = {}

    def loss(trial: Trial) -> float:
        return losses.setdefault(trial, rng.choice([math.inf, rng.random(), rng.random(), rng.random()]))

    one, other = Search([RATES, WARMUPS], rungs), Search([RATES, WARMUPS], rungs)
    expected = run(one, loss)
    assert run(other, loss, random.Random(seed + 1)) == expected
    assert one.chosen == other.chosen
    again = Search([RATES, WARMUPS], rungs)
    assert run(again, losses.__getitem__) == expected, "a comparison that is continued reads them in the same order"


def test_over_tells_which_runs_will_not_go_on() -> None:
    search = Search([RATES], RUNGS)
    loss = distance(2.8)
    for trial in search.ready():
        search.take(trial, loss(trial))
    (stage,) = search.stages()
    assert [stage.over(value) for value in stage.values] == [True, False, False]


def test_predicted_counts_all_runs_to_come() -> None:
    search = Search([RATES, WARMUPS], [1000])
    assert [len(group) for group in search.predicted()] == [3, 3]
    halved = Search([RATES], RUNGS)
    assert [[trial.steps for trial in group] for group in halved.predicted()] == [[250] * 3, [500] * 2, [1000]]
    assert halved.ready() == halved.predicted()[0], "nothing is noted"
    low, *others = halved.ready()
    for trial in (low, *others):
        halved.take(trial, trial.point[0])
    assert [trial.point for trial in halved.ready()] == [(0.5,)], "a wider grid"
    assert [[trial.steps for trial in group] for group in halved.predicted()] == [[250], [500] * 2, [1000]]
    run(halved, distance(2.0))
    assert halved.predicted() == []


def test_better_half_is_rounded_up_and_leaves_out_what_diverged() -> None:
    assert better_half({1.0: 3.0, 2.0: 1.0, 3.0: 2.0}) == [2.0, 3.0]
    assert better_half({1.0: math.inf, 2.0: math.inf, 3.0: 2.0}) == [3.0]
    assert better_half({1.0: 1.0, 2.0: 1.0}) == [1.0]
    assert better_half({1.0: math.inf}) == []
