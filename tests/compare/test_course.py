"""Tests which jobs of a model can run: the check, all values of a grid at once, then the seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.compare.course import Course
from lmzoo.compare.engine import Done, Job
from lmzoo.compare.grid import Measured, make_cell
from lmzoo.compare.results import CellResult, ModelResult
from lmzoo.compare.tune import Grid
from lmzoo.runs.spec import RunSpec

SEEDS = [1337, 1338]
BASE = ModelResult(name="gpt2", config={"train": {}})


@pytest.fixture
def make(small_spec: Callable[..., RunSpec], tmp_path: Path) -> Callable[..., Course]:
    def course(grid: Grid | None = None, model: str = "gpt2") -> Course:
        spec = small_spec(model)
        return Course(make_cell(tmp_path, spec, spec, model), SEEDS, grid, tmp_path, 30)

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
    assert [job.cell.spec.train.learning_rate for job in (low, high)] == [0.1, 0.2]
    course.take(measured(low, 2.0))
    assert course.ready() == [], "the other value may be better"
    course.take(measured(high, None, "diverged"))
    (lower,) = begin(course)
    assert lower.cell.spec.train.learning_rate == 0.05, "the best value was the lowest"
    assert course.tuned() is None
    course.take(measured(lower, 2.5))
    assert [job.cell.label for _, job in course.ready()] == [
        "runs/gpt2,learning_rate=0.1",
        "runs/gpt2,seed=1338,learning_rate=0.1",
    ] or [job.cell.spec.train.learning_rate for _, job in course.ready()] == [0.1, 0.1]
    tuned = course.tuned()
    assert tuned is not None
    assert (tuned["chosen"], tuned["at_end"]) == (0.1, False)
    assert [(trial["value"], trial["status"]) for trial in tuned["tried"]] == [
        (0.05, "trained"),
        (0.1, "trained"),
        (0.2, "diverged"),
    ]
    assert len(course.cells()) == 4, "three values and a second seed"


def test_take_ends_a_model_that_fails(make: Callable[..., Course]) -> None:
    course = make()
    (check,) = begin(course)
    course.take(Done(check, problem="zoo.py:3: KeyError"))
    row = course.row()
    assert row is not None
    assert (row.status, row.problem, course.done) == ("failed", "zoo.py:3: KeyError", True)
    assert course.ready() == course.cells() == []


def test_take_tunes_only_what_is_trained_by_gradients(make: Callable[..., Course]) -> None:
    course = make(Grid("learning_rate", (0.1, 0.2)), "ngram")
    (check,) = begin(course)
    course.take(Done(check, BASE))
    assert [job.cell.label for _, job in course.ready()] == ["runs/ngram", "runs/ngram,seed=1338"]
    assert course.tuned() is None
