"""Tests the order of the jobs of a comparison, what it announces, and the time that it forecasts."""

from __future__ import annotations

import math
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare import compare, forecast, prediction, schedule
from lmzoo.compare.engine import Done, Job, execute
from lmzoo.compare.grid import Cell
from lmzoo.compare.jobs import Alone
from lmzoo.compare.measure import Measurer
from lmzoo.compare.results import Results
from lmzoo.train.events import Event, NoteEvent
from tests.compare.small import NAMES, SETTINGS, TUNE, write_text


class Recorded(Alone[Job, Done]):
    """Runs the jobs in this process, as if there were two workers."""

    workers = 2
    submitted: list[Job]

    def submit(self, job: Job) -> None:
        self.submitted.append(job)
        super().submit(job)


class Away:
    """Runs the jobs as `Recorded`, but as an engine whose workers are other processes; notes each in `log`."""

    workers = 2

    def __init__(self, measurer: Measurer, log: list[str]) -> None:
        self._alone, self._log = Alone[Job, Done](partial(execute, measurer)), log

    def submit(self, job: Job) -> None:
        self._log.append(f"{job.kind} {job.cell.label}")
        self._alone.submit(job)

    def wait(self, seconds: float) -> list[Done]:
        return self._alone.wait(seconds)

    def stop(self) -> None: ...


def notes_of(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, NoteEvent)]


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


def test_schedule_states_the_time_before_and_after(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    compare(NAMES, text, tmp_path / "out", seeds=2, settings=SETTINGS | {"steps": 2}, listeners=[events.append])
    notes = notes_of(events)
    assert notes.index("gpt2 (2 of 2): checking") < notes.index("bigram with seed 1337 (1 of 4): training")
    (before,) = [note for note in notes if re.fullmatch(r"4 runs: about [\d.]+ s", note)]
    assert notes.index("gpt2 (2 of 2): checking") < notes.index(before)
    assert notes[-2] == "gpt2 with seed 1338 (4 of 4): training"
    assert re.fullmatch(r"4 runs took [\d.]+ s, results in .*out", notes[-1])
    events.clear()
    compare(NAMES, text, tmp_path / "out", seeds=2, settings=SETTINGS | {"steps": 2}, listeners=[events.append])
    assert not any("about" in note or "took" in note for note in notes_of(events)), "nothing is missing"


def test_schedule_counts_the_runs_of_all_searches_that_are_missing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"tune": [TUNE, "warmup_steps=0,1,4"], "halving": True, "seeds": 2, "settings": SETTINGS}
    events: list[Event] = []

    def until_bigram_is_tuned(event: Event) -> None:
        events.append(event)
        if isinstance(event, NoteEvent) and event.message.startswith("gpt2: training"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(NAMES, text, tmp_path / "out", listeners=[until_bigram_is_tuned], **options)
    (before,) = [note for note in notes_of(events) if " runs: about " in note]
    # of each model two rates, two more warm-ups than the middle one, and a second seed
    assert re.fullmatch(r"10 runs: about [\d.]+ s, and more where the grid is widened", before)
    events.clear()
    compare(NAMES, text, tmp_path / "out", listeners=[events.append], **options)
    notes = notes_of(events)
    (after,) = [note for note in notes if " runs: about " in note]
    assert after.startswith("6 runs: about "), "one of bigram, five of gpt2"
    assert not any(note.startswith("bigram: training") for note in notes), "finished runs are not announced"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    def make_engine(name: str, measurer: Measurer, *numbers: int) -> Recorded:
        return Recorded(partial(execute, measurer))

    Recorded.submitted = []
    monkeypatch.setattr("lmzoo.compare.comparison.make_engine", make_engine)
    return Recorded.submitted


def test_schedule_runs_the_longest_cells_of_each_seed_first(
    recorded: list[Job], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost: dict[str, float] = {"bigram": 1.0, "gpt2": 2.0}
    costs = lambda self, cell: forecast.Cost(cost[cell.model], 0.0, 0.0)  # noqa: E731
    monkeypatch.setattr(Measurer, "time", costs)
    compare(NAMES, text, tmp_path / "out", seeds=2, settings=SETTINGS | {"steps": 2}, workers=2, listeners=[print])
    assert [(job.kind, job.cell.label.removeprefix("runs/")) for job in recorded] == [
        ("check", "bigram"),
        ("check", "gpt2"),
        ("time", "bigram"),
        ("time", "gpt2"),
        ("measure", "gpt2"),
        ("measure", "bigram"),
        ("measure", "gpt2,seed=1338"),
        ("measure", "bigram,seed=1338"),
    ]


def test_schedule_ranks_nothing_before_every_model_has_two_seeds(
    recorded: list[Job], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeds of ngram, which has nothing to tune, are done while the values of gpt2 are tried."""
    written: list[Results] = []
    monkeypatch.setattr("lmzoo.compare.comparison.write", lambda results, folder: written.append(results))
    monkeypatch.setattr(schedule, "WRITING_SHARE", 1e9)
    settings = SETTINGS | {"steps": 2, "order": 2}
    compare(["ngram", "gpt2"], text, tmp_path / "out", settings=settings, seeds=3, tune="learning_rate=0.03,0.1")
    early = [results for results in written if [len(model.cells) > 1 for model in results.models] == [True]]
    assert early, "several seeds of ngram alone"
    assert all(results.statistics is None and not results.places for results in early)
    assert written[-1].complete
    assert written[-1].statistics is not None


def test_schedule_gives_workers_new_runs_before_it_writes(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    monkeypatch.setattr("lmzoo.compare.comparison.make_engine", lambda name, measurer, *more: Away(measurer, log))
    monkeypatch.setattr("lmzoo.compare.comparison.write", lambda results, folder: log.append("write"))
    monkeypatch.setattr(schedule, "WRITING_SHARE", math.inf)
    compare(NAMES, text, tmp_path / "out", seeds=2, settings=SETTINGS | {"steps": 2}, workers=2)
    seconds = ["measure runs/bigram,seed=1338", "measure runs/gpt2,seed=1338"]
    assert log[-5:] == [*seconds, "write", "write", "write"], "after two seeds, two more, and the end"


def test_schedule_writes_a_slow_report_seldom_but_when_it_is_stopped(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def write(results: Results, folder: Path) -> None:
        written.append(sum(len(model.cells) for model in results.models))
        time.sleep(0.2)  # so the next one may come after ten seconds

    def stop(event: Event) -> None:
        if isinstance(event, NoteEvent) and event.message.startswith("gpt2 with seed 1338"):
            raise KeyboardInterrupt

    monkeypatch.setattr("lmzoo.compare.comparison.write", write)
    monkeypatch.setattr(forecast, "STEPS_SECONDS", 0.01)
    options: dict[str, Any] = {"seeds": 2, "settings": SETTINGS | {"steps": 2}}
    with pytest.raises(KeyboardInterrupt):
        compare(NAMES, text, tmp_path / "out", listeners=[stop], **options)
    assert written == [1, 3], "after the first run, and when it is stopped"
    written.clear()
    compare(NAMES, text, tmp_path / "out", **options)
    assert written == [4, 4], "after the missing run, and with the speeds"


def test_schedule_forecasts_without_a_model_that_cannot_be_timed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time(self: Measurer, cell: Cell) -> forecast.Cost:
        if cell.model == "gpt2":
            raise KeyError("a plug-in")
        return forecast.Cost(50.0, 0.0, 0.0)

    monkeypatch.setattr(Measurer, "time", time)
    monkeypatch.setattr("lmzoo.plugins.blame", lambda error, classes: f"zoo.py:3: {error!r}")
    events: list[Event] = []
    results = compare(NAMES, text, tmp_path / "out", settings=SETTINGS | {"steps": 2}, listeners=[events.append])
    assert [model.status for model in results.models] == ["ranked", "ranked"]
    assert any(note.startswith("2 runs: about 1 min 40 s") for note in notes_of(events))


def test_schedule_predicts_a_part_once(
    recorded: list[Job], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def seconds(cell: Cell, cost: forecast.Cost, val: object, start: int, end: int, **more: bool) -> float:
        asked.append((cell.label, end))
        return 1.0

    monkeypatch.setattr(prediction, "part_seconds", seconds)
    compare(["gpt2"], text, tmp_path / "out", seeds=3, settings=SETTINGS, workers=2, listeners=[print])
    assert len(asked) == len(set(asked)) == 3, "the table asks for the time left twice a second"


def test_schedule_makes_each_run_once(recorded: list[Job], text: str, tmp_path: Path) -> None:
    """The chosen run of a grid is measured a second time, for its speed and its sample, but not trained."""
    settings = SETTINGS | {"steps": 2}
    compare(NAMES, text, tmp_path / "out", tune=TUNE, seeds=2, settings=settings, workers=2)
    assert not any(job.kind == "time" for job in recorded), "nobody hears a forecast"
    labels = [job.cell.label for job in recorded if job.kind == "measure" and job.config is None]
    assert len(labels) == len(set(labels))
    assert set(labels) == {f"runs/{path.name}" for path in (tmp_path / "out" / "runs").iterdir()}
