"""Tests the progress bar: what it prints of a run, and its measurement of utilisation."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lmzoo.runs.run import RunSpec, train_run
from lmzoo.train import progress
from lmzoo.train.events import (
    CheckpointEvent,
    EndEvent,
    EvalEvent,
    EvaluatingEvent,
    Event,
    NoteEvent,
    StartEvent,
    StepEvent,
)
from lmzoo.train.progress import ProgressBar


def written_by(*events: Event, terminal: bool, width: int = 160) -> str:
    """Return what a progress bar writes, without the codes that move the cursor."""
    output = io.StringIO()
    with ProgressBar(Console(file=output, width=width, force_terminal=terminal, color_system=None)) as bar:
        for event in events:
            bar(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())


def test_progress_bar_shows_the_run(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    events: list[Event] = []
    train_run(small_spec(), tmp_path / "run", listeners=[events.append])
    text = written_by(*events, terminal=True)
    assert "gpt2: " in text
    assert "64 tokens a step, float32 on cpu" in text
    assert re.search(r"loss \d\.\d{4}  [\d,]+ tokens/s  \d+% of peak|evaluating: 0%", text), text
    assert "step 8: validation " in text
    assert "12/12" in text
    assert "saved in" in text


START = StartEvent("gpt2.124m", 1, 0, 20000, 50, "float32", "cpu", Path("runs/x"), 150e6)
STEP = StepEvent(12000, 10.8249, 0.1, 1.0, 100, 0.1, 1000.0)


def test_progress_bar_shows_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 tokens/s of 3 MFLOPs each are 30 % of 10 GFLOPs/s; without a measured rate, none is shown."""
    for rate, shown in ((10e9, "30% of peak"), (None, "utilisation n/a")):
        monkeypatch.setattr(progress, "_best_rate", lambda precision, device, rate=rate: rate)
        text = written_by(START, STEP, terminal=True, width=100)
        assert shown in text
        assert "12000/20000" in text


@pytest.mark.parametrize("width", [40, 50, 60, 80])
def test_progress_bar_leaves_out_figures_in_a_narrow_terminal(width: int) -> None:
    text = written_by(START, STEP, terminal=True, width=width)
    assert "12000/20000" in text
    assert "loss 10.8249" in text
    assert "…" not in text
    assert max(len(line) for line in re.split(r"[\r\n]", text) if "12000" in line) <= width


def test_progress_bar_shows_that_an_evaluation_goes_on() -> None:
    evaluating = EvaluatingEvent(12000, 50, 200)
    assert "evaluating: 25%" in written_by(START, STEP, evaluating, terminal=True)
    done = EvalEvent(12000, 1.0, 1.4, 100, 0.1)
    assert "loss 10.8249" in written_by(START, STEP, evaluating, done, terminal=True).splitlines()[-1]


def test_progress_bar_breaks_lines_between_words() -> None:
    path = "a-name/" * 12
    text = written_by(NoteEvent(f"the run is in the directory {path}"), terminal=True, width=40)
    assert text.split("\n")[:2] == ["the run is in the directory", path]


def test_progress_bar_writes_lines_to_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("a-name-of-a-directory") / ("long-" * 30)
    start = dataclasses.replace(START, path=path)
    text = written_by(start, STEP, NoteEvent("done"), terminal=False, width=40)
    assert text.splitlines()[0].endswith(f"in {path}"), "a path is not wrapped"
    assert text.splitlines()[1:] == ["done"], "no bar, and no line for a step within ten seconds"
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    first = dataclasses.replace(STEP, step=1)
    *_, one, line = written_by(start, first, STEP, terminal=False, width=40).splitlines()
    assert re.match(r"gpt2\.124m 1 of 20,000  loss", one), "how long a step takes is not known yet"
    assert re.fullmatch(
        r"gpt2\.124m 12,000 of 20,000, [\d.]+ s left  loss 10\.8249  1,000 tokens/s  \d+% of peak", line
    )


def test_progress_bar_tells_the_time_left_from_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check before the first step took 100 s; each step takes 20 s."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines: list[str] = []
    log = progress.Log(lines.append)
    log.show("gpt2", 10, 0, "")
    for step, now in ((1, 100.0), (2, 120.0), (3, 140.0)):  # noqa: B007 (`monotonic` reads it)
        log.show(None, None, step, "")
    assert lines == ["gpt2 1 of 10", "gpt2 2 of 10, 2 min 40 s left", "gpt2 3 of 10, 2 min 20 s left"]


def test_progress_bar_names_a_checkpoint_once() -> None:
    saved = CheckpointEvent(12000, Path("runs/x/checkpoints/step-00012000"))
    text = written_by(START, STEP, saved, EndEvent(), EndEvent(), terminal=False)
    assert text.splitlines()[1:] == ["saved in runs/x/checkpoints/step-00012000"]


def test_progress_bar_shows_what_takes_time_before_the_first_step() -> None:
    output = io.StringIO()
    with ProgressBar(Console(file=output, width=100, force_terminal=True, color_system=None)) as bar:
        bar(START)
        bar.doing("checking the model", 0)
    assert "checking the model" in output.getvalue()


def test_progress_bar_writes_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressBar()(NoteEvent("a note"))
    assert capsys.readouterr() == ("", "a note\n")


def test_progress_bar_shows_at_most_all_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate measured while the machine was busy is too low: the fastest step then is the peak."""
    monkeypatch.setattr(progress, "_best_rate", lambda precision, device: 1e9)
    output = io.StringIO()
    with ProgressBar(Console(file=output, width=80, force_terminal=False)) as bar:
        bar(StartEvent("gpt2.124m", 1, 0, 20000, 50, "float32", "cpu", Path("runs/x"), 150e6))
        assert bar._utilisation(StepEvent(1, 10.0, 0.1, 1.0, 100, 0.1, 1000.0)) == "100% of peak"
        assert bar._utilisation(StepEvent(2, 10.0, 0.1, 1.0, 100, 0.1, 500.0)) == "50% of peak"


@pytest.mark.timing
def test_best_rate_is_measured_quickly() -> None:
    began = time.perf_counter()
    assert 1e8 < (progress._best_rate("float32", "cpu") or 0) < 1e14
    assert time.perf_counter() - began < 2  # 0.1 s on a quiet machine
