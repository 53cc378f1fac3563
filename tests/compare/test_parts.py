"""Tests parts of the training of a cell: what is measured and kept, and what happens after a kill or a divergence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.compare import parts
from lmzoo.compare.engine import Job, execute
from lmzoo.compare.grid import Cell, Measured, make_cell
from lmzoo.compare.measure import Measurer
from lmzoo.compare.parts import PARTS_FILE
from lmzoo.data.corpora import load_corpus
from lmzoo.data.halves import validation_halves
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import ConfigError
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.run import train_part
from lmzoo.runs.saved import load_run
from lmzoo.runs.spec import RunSpec
from lmzoo.train.carried import evaluate_carried
from lmzoo.train.evaluate import evaluate
from lmzoo.train.events import EvalEvent, Event, StepEvent


@pytest.fixture
def cell(small_spec: Callable[..., RunSpec], tmp_path: Path) -> Cell:
    spec = small_spec()
    return make_cell(tmp_path, spec, spec, "gpt2")


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def measurer(text: Path, events: list[Event]) -> Measurer:
    corpus = load_corpus(str(text))
    data = PreparedData(corpus, train_tokenizer("char", corpus.chunks("train")))
    return Measurer(data, [0], [events.append], False, validation_halves(corpus, data.tokenizer))


def steps_of(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, StepEvent)]


def test_measure_part_evaluates_the_half_that_chooses(measurer: Measurer, cell: Cell, events: list[Event]) -> None:
    found = measurer.measure_part(cell, 5)
    assert steps_of(events) == [1, 2, 3, 4, 5]
    assert measurer.halves is not None
    loss = evaluate(load_run(cell.run).model, measurer.halves[0].split).loss
    assert found.cell.selection_loss == pytest.approx(loss, abs=1e-6)
    assert (found.cell.status, found.cell.loss, found.cell.run) == ("stopped", None, "runs/gpt2")
    done = execute(measurer, Job("measure", cell, until=8))
    assert isinstance(done.value, Measured)
    assert done.value.cell.selection_loss != found.cell.selection_loss
    assert measurer.measure(cell).cell.status == "trained"
    assert steps_of(events) == list(range(1, 13)), "each step once"


def test_measure_part_carries_the_context(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = small_spec("lstm", d_model=8)
    cell = make_cell(tmp_path, spec, spec, "lstm")
    carried = dataclasses.replace(measurer, context="carried")
    found = carried.measure_part(cell, 5).cell
    assert measurer.halves is not None
    assert found.selection_loss == evaluate_carried(load_run(cell.run).model, measurer.halves[0].split).loss
    assert carried.part_key(cell) != measurer.part_key(cell)


def test_measure_part_of_all_steps_leaves_the_last_evaluation_to_the_chosen_run(
    measurer: Measurer, cell: Cell, events: list[Event]
) -> None:
    found = measurer.measure_part(cell, 12).cell
    assert (found.status, found.loss) == ("trained", None)
    assert [event.step for event in events if isinstance(event, EvalEvent)] == [4, 8]
    events.clear()
    assert measurer.measure_part(cell, 12).cell == found
    (cell.run / PARTS_FILE).unlink()
    assert measurer.measure_part(cell, 12).cell == found, "also after a kill before the loss was kept"
    assert not any(isinstance(event, EvalEvent) for event in events)
    assert measurer.measure(cell).cell.loss is not None
    assert [event.step for event in events if isinstance(event, EvalEvent)] == [12]


def test_read_part_gives_what_was_kept_though_the_run_went_on(
    measurer: Measurer, cell: Cell, events: list[Event]
) -> None:
    assert measurer.kept(cell, until=5) is None
    found = measurer.measure_part(cell, 5)
    measurer.measure(cell)
    events.clear()
    assert measurer.measure_part(cell, 5) == measurer.kept(cell, until=5) == found
    assert events == []
    assert measurer.kept(cell, until=6) is None
    other = dataclasses.replace(cell, spec=dataclasses.replace(cell.spec, config={**cell.spec.config, "n_layers": 2}))
    assert measurer.kept(other, until=5) is None, "its key is another one"
    threads = dataclasses.replace(measurer, at_once=2, prompt_ids=[1])
    assert threads.kept(cell, until=5) == found, "how the comparison is made does not matter"


@pytest.mark.parametrize("content", ["{", "[]", '{"key": 1}', '{"key": "KEY", "parts": {"5": {"color": 1}}}'])
def test_read_part_ignores_a_damaged_file(content: str, measurer: Measurer, cell: Cell) -> None:
    measurer.measure_part(cell, 5)
    (cell.run / PARTS_FILE).write_text(content.replace("KEY", measurer.part_key(cell)))
    assert measurer.kept(cell, until=5) is None
    assert measurer.measure_part(cell, 5).cell.status == "stopped", "the run is still at this step"


def test_measure_part_goes_on_after_a_kill_before_the_loss_was_kept(
    measurer: Measurer, cell: Cell, events: list[Event]
) -> None:
    train_part(cell.spec, cell.run, 5, prepared=measurer.data)
    assert measurer.measure_part(cell, 5).cell.selection_loss
    assert steps_of(events) == []


def test_refuse_later_names_the_step_of_a_run(measurer: Measurer, cell: Cell) -> None:
    train_part(cell.spec, cell.run, 6, prepared=measurer.data)
    with pytest.raises(ConfigError, match=r"the run in .*gpt2 is at step 6, and its loss at step 5 was not kept"):
        measurer.measure_part(cell, 5)
    parts.refuse_later(cell, 6, measurer.part_key(cell))


def test_measure_part_keeps_that_a_run_diverged(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = small_spec("bigram", learning_rate=1e37, grad_clip=0.0, warmup_steps=0, schedule="constant")
    cell = make_cell(tmp_path, spec, spec, "bigram")
    found = measurer.measure_part(cell, 9)
    assert (found.cell.status, found.cell.selection_loss) == ("diverged", None)
    assert "training stops" in found.cell.problem
    kept = measurer.kept(cell, until=9)
    assert kept is not None
    assert (kept.cell.status, kept.cell.problem) == ("diverged", found.cell.problem)


def test_measure_part_takes_a_loss_that_is_not_finite_as_diverged(
    measurer: Measurer, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        parts, "evaluate_text", lambda *given, **_: dataclasses.replace(evaluate(*given), loss=math.nan)
    )
    found = measurer.measure_part(cell, 5)
    assert (found.cell.status, found.cell.problem) == ("diverged", "step 5: the validation loss is nan")
