"""Tests the progress bar: what it prints of a run, and its measurement of utilisation."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lmzoo.runs.run import RunSpec, train_run
from lmzoo.train import progress
from lmzoo.train.events import StartEvent, StepEvent
from lmzoo.train.progress import ProgressBar


def test_progress_bar_shows_the_run(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    output = io.StringIO()
    with ProgressBar(Console(file=output, width=160, force_terminal=False)) as bar:
        train_run(small_spec(), tmp_path / "run", listeners=[bar])
    text = output.getvalue()
    assert "gpt2: " in text
    assert "64 tokens a step, float32 on cpu" in text
    assert re.search(r"loss \d\.\d{4}  [\d,]+ tokens/s  \d+% of peak", text), text
    assert "step 8: validation " in text
    assert "12/12" in text
    assert "saved in" in text


def test_progress_bar_shows_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 tokens/s of 3 MFLOPs each are 30 % of 10 GFLOPs/s; without a measured rate, none is shown."""
    for rate, shown in ((10e9, "30% of peak"), (None, "utilisation n/a")):
        monkeypatch.setattr(progress, "_best_rate", lambda precision, device, rate=rate: rate)
        output = io.StringIO()
        with ProgressBar(Console(file=output, width=80, force_terminal=False)) as bar:
            bar(StartEvent("gpt2.124m", 1, 0, 20000, 50, "float32", "cpu", Path("runs/x"), 150e6))
            bar(StepEvent(12000, 10.8249, 0.1, 1.0, 100, 0.1, 1000.0))
        assert shown in output.getvalue()
        assert "12000/20000" in output.getvalue()
        assert "tokens/s" in output.getvalue()


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
