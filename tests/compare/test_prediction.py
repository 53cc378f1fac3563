"""Tests the predicted seconds of a comparison: of all seeds, of several workers, and of what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.compare.course import Course, Part
from lmzoo.compare.engine import Done
from lmzoo.compare.forecast import Cost
from lmzoo.compare.grid import Measured, make_cell
from lmzoo.compare.measure import Measurer
from lmzoo.compare.prediction import Prediction
from lmzoo.compare.results import CellResult, ModelResult
from lmzoo.data.corpora import load_corpus
from lmzoo.data.store import open_store
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.spec import RunSpec

SEEDS = [1337, 1338]
COST = Cost(2.0, 0.0, 0.0)  # seconds of a step; evaluations and samples take no time


@pytest.fixture
def measurer(text: Path) -> Measurer:
    corpus = load_corpus(str(text))
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    return Measurer(PreparedData(corpus, tokenizer, open_store(corpus, tokenizer)), [0], [], False)


@pytest.fixture
def course(small_spec: Callable[..., RunSpec], tmp_path: Path) -> Course:
    """A model of two runs of 12 steps, which has passed its check."""
    spec = small_spec(steps=12)
    course = Course(make_cell(tmp_path, spec, spec, "gpt2"), SEEDS, None, tmp_path, 30)
    ((_, check),) = course.ready()
    course.begin(check)
    course.take(Done(check, ModelResult(name="gpt2", config={"train": {}})))
    return course


def test_prediction_of_all_shares_the_seeds_between_workers(measurer: Measurer, course: Course) -> None:
    for workers, seconds in ((1, 48.0), (2, 24.0), (3, 24.0)):
        prediction = Prediction([course], measurer, workers, SEEDS[0])
        prediction.take("gpt2", COST)
        assert prediction.of_all() == seconds
        assert prediction.left() == seconds, "nothing is done"


def test_prediction_without_costs_knows_nothing(measurer: Measurer, course: Course) -> None:
    prediction = Prediction([course], measurer, 1, SEEDS[0])
    assert prediction.left() is None
    assert prediction.of_part(Part(course.first, 0, 12)) == 0.0
    assert prediction.of_steps({"gpt2": 3.0}) == 0.0
    prediction.take("gpt2", COST)
    assert prediction.of_part(Part(course.first, 0, 12)) == 24.0
    assert prediction.of_part(Part(course.first, 4, 12)) == 16.0
    assert prediction.of_steps({"gpt2": 3.0, "bigram": 5.0}) == 6.0


def test_prediction_of_what_is_left_follows_the_time_spent(measurer: Measurer, course: Course) -> None:
    prediction = Prediction([course], measurer, 1, SEEDS[0])
    prediction.take("gpt2", COST)
    assert prediction.of_all() == 48.0
    _, job = course.ready()[0]
    course.begin(job)
    result = CellResult(seed=job.cell.seed, run=job.cell.label, status="trained", loss=2.0, selection_loss=2.0)
    prediction.begin()
    course.take(Done(job, Measured(result, {})))
    left = prediction.left()
    assert left is not None
    assert 0 < left < 1, "a half is left, and the other half took almost no time"
    assert 0 < prediction.spent() < 1
