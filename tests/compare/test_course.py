"""Tests which jobs of a model can run: the check, all values of a grid at once, then the seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.compare.course import Course
from lmzoo.compare.engine import Done, Job
from lmzoo.compare.grid import Measured, make_cell
from lmzoo.compare.results import CellResult, ModelResult
from lmzoo.compare.search import Search
from lmzoo.compare.tune import Grid
from lmzoo.runs.spec import RunSpec

SEEDS = [1337, 1338]
BASE = ModelResult(name="gpt2", config={"train": {}})


@pytest.fixture
def make(small_spec: Callable[..., RunSpec], tmp_path: Path) -> Callable[..., Course]:
    def course(*grids: Grid, rungs: tuple[int, ...] = (12,), model: str = "gpt2") -> Course:
        spec = small_spec(model)
        search = Search(grids, rungs) if grids else None
        return Course(make_cell(tmp_path, spec, spec, model), SEEDS, search, tmp_path, 30)

    return course


def begin(course: Course) -> list[Job]:
    jobs = [job for _, job in course.ready()]
    for job in jobs:
        course.begin(job)
    return jobs


def measured(job: Job, loss: float | None, status: str = "trained", **more: float) -> Done:
    cell = job.cell
    result = CellResult(seed=cell.seed, run=cell.label, status=status, loss=loss, selection_loss=loss)
    return Done(job, Measured(result, more))


def test_ready_gives_the_check_and_then_all_seeds(make: Callable[..., Course]) -> None:
    course = make()
    assert [(turn, job.kind) for turn, job in course.ready()] == [(-1, "check")]
    (check,) = begin(course)
    assert course.ready() == []
    course.take(Done(check, BASE))
    assert [(turn, job.cell.label) for turn, job in course.ready()] == [(0, "runs/gpt2"), (1, "runs/gpt2,seed=1338")]
    first, second = begin(course)
    assert (first.config, second.config) == (BASE.config, None), "the first run has a speed and a sample"
    assert course.row() is None
    course.take(measured(second, 3.0))
    row = course.row()
    assert row is not None
    assert (row.loss, row.run, course.done, course.first_cell) == (3.0, "runs/gpt2", False, None)
    course.take(measured(first, 2.0, train_tokens_per_s=7.0))
    row = course.row()
    assert row is not None
    assert (row.loss, [cell.seed for cell in row.cells], course.done) == (2.5, SEEDS, True)
    assert row.train_tokens_per_s == 7.0, "measured alone, not the mean over runs made at once"


def test_ready_waits_for_the_choice_of_a_value(make: Callable[..., Course]) -> None:
    course = make(Grid("learning_rate", (0.1, 0.2)))
    (check,) = begin(course)
    course.take(Done(check, BASE))
    low, high = begin(course)
    assert [job.until for job in (low, high)] == [12, 12]
    assert [job.cell.spec.train.learning_rate for job in (low, high)] == [0.1, 0.2]
    course.take(measured(low, 2.0))
    assert course.ready() == [], "the other value may be better"
    course.take(measured(high, None, "diverged"))
    (lower,) = begin(course)
    assert lower.cell.spec.train.learning_rate == 0.05, "the best value was the lowest"
    assert course.tuned() == []
    course.take(measured(lower, 2.5))
    assert [job.cell.label for _, job in course.ready()] == [
        "runs/gpt2,learning_rate=0.1",
        "runs/gpt2,seed=1338,learning_rate=0.1",
    ] or [job.cell.spec.train.learning_rate for _, job in course.ready()] == [0.1, 0.1]
    (tuned,) = course.tuned()
    assert (tuned["chosen"], tuned["at_end"]) == (0.1, False)
    assert [(trial["value"], trial["status"]) for trial in tuned["tried"]] == [
        (0.05, "trained"),
        (0.1, "trained"),
        (0.2, "diverged"),
    ]
    assert len(course.cells()) == 4, "three values and a second seed"


def test_ready_gives_parts_of_runs_and_left_what_they_need(make: Callable[..., Course]) -> None:
    course = make(Grid("learning_rate", (0.1, 0.2, 0.4)), rungs=(3, 6, 12))
    (check,) = begin(course)
    course.take(Done(check, BASE))
    assert [[(part.start, part.end) for part in group] for group in course.left()] == [
        [(0, 3)] * 3,
        [(3, 6)] * 2,
        [(6, 12)],
        [(12, 12), (0, 12)],  # what follows the last step of the chosen run, and the second seed
    ]
    assert [{part.trial for part in group} for group in course.left()] == [{True}, {True}, {True}, {False}]
    low, middle, high = begin(course)
    assert [job.until for job in (low, middle, high)] == [3, 3, 3]
    course.take(measured(high, 3.0, "stopped"))
    assert [result for _, result in course.cells()] == [None] * 4, "it may go on"
    assert [course.running(cell) for cell, _ in course.cells()] == [True, True, False, False]
    course.take(measured(low, None, "diverged"))
    assert [result is not None for _, result in course.cells()] == [True, False, False, False]
    course.take(measured(middle, 2.0, "stopped"))
    middle, high = begin(course)
    assert [job.until for job in (middle, high)] == [6, 6]
    course.take(measured(high, 2.5, "stopped"))
    course.take(measured(middle, 1.5, "stopped"))
    (last,) = begin(course)
    assert (last.until, last.cell.spec.train.learning_rate) == (12, 0.2)
    assert [result is not None for _, result in course.cells()] == [True, False, True, False]
    course.take(measured(last, 1.0))
    (tuned,) = course.tuned()
    assert [(trial["value"], trial["status"], trial["selection_loss"], trial["parts"]) for trial in tuned["tried"]] == [
        (0.1, "diverged", None, [[3, None]]),
        (0.2, "trained", 1.0, [[3, 2.0], [6, 1.5], [12, 1.0]]),
        (0.4, "stopped", 2.5, [[3, 3.0], [6, 2.5]]),
    ]
    assert [[part.cell.label for part in group] for group in course.left()] == [
        ["runs/gpt2,learning_rate=0.2", "runs/gpt2,learning_rate=0.2,seed=1338"]
    ]
    chosen, _ = begin(course)
    course.take(measured(chosen, 1.25))
    assert [trial["loss"] for trial in course.tuned()[0]["tried"]] == [None, 1.25, None]


def test_cells_and_left_are_listed_anew_after_a_change_alone(make: Callable[..., Course]) -> None:
    course = make(Grid("learning_rate", (0.1, 0.2)))
    (check,) = begin(course)
    course.take(Done(check, BASE))
    cells, left = course.cells(), course.left()
    assert course.cells() is cells
    assert course.left() is left
    low, high = begin(course)
    course.take(measured(low, 2.0))
    assert [result is not None for _, result in course.cells()] == [True, False, False]
    assert [len(group) for group in course.left()] == [1, 2]
    course.take(measured(high, 3.0))
    before = course.cells()
    course.add_speeds(Measured(CellResult(seed=SEEDS[0], run="r", loss=1.0)))
    assert course.cells() is not before


def test_tuned_has_an_entry_for_each_setting(make: Callable[..., Course]) -> None:
    course = make(Grid("learning_rate", (0.1, 0.2)), Grid("warmup_steps", (0.0, 1.0, 4.0), (0.0, 12.0)))
    (check,) = begin(course)
    course.take(Done(check, BASE))
    made = 0
    while course.tuned() == []:
        for job in begin(course):
            train, made = job.cell.spec.train, made + 1
            course.take(measured(job, abs(train.learning_rate - 0.12) + abs((train.warmup_steps or 0) - 0.8)))
    rates, warmups = course.tuned()
    assert (rates["chosen"], warmups["chosen"]) == (0.1, 1.0)
    assert made == 2 + 1 + 2, "a wider grid of rates, and no run twice"
    assert len(course.cells()) == made + 1
    assert [job.cell.spec.train.warmup_steps for _, job in course.ready()] == [1, 1]


def test_take_ends_a_model_that_fails(make: Callable[..., Course]) -> None:
    course = make()
    (check,) = begin(course)
    course.take(Done(check, problem="zoo.py:3: KeyError"))
    row = course.row()
    assert row is not None
    assert (row.status, row.problem, course.done) == ("failed", "zoo.py:3: KeyError", True)
    assert course.ready() == course.cells() == []


def test_take_keeps_the_costs_of_a_model_whose_run_raises(make: Callable[..., Course]) -> None:
    course = make()
    (check,) = begin(course)
    course.take(Done(check, BASE))
    (run, *_) = begin(course)
    course.take(Done(run, problem="zoo.py:3: KeyError"))
    assert course.row() == dataclasses.replace(BASE, status="failed", problem="zoo.py:3: KeyError")


def test_take_tunes_only_what_is_trained_by_gradients(make: Callable[..., Course]) -> None:
    course = make(Grid("learning_rate", (0.1, 0.2)), model="ngram")
    (check,) = begin(course)
    course.take(Done(check, BASE))
    assert [job.cell.label for _, job in course.ready()] == ["runs/ngram", "runs/ngram,seed=1338"]
    assert course.tuned() == []
