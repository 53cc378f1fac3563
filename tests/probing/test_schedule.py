"""Tests of several cells at once: the results of one process, states, and what an interrupt leaves."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lmzoo.probing import Results, probe_models, schedule
from lmzoo.train.events import CellsEvent, EndEvent, Event, NoteEvent, StartEvent
from lmzoo.train.signals import Interrupted

LONG = {"steps": 100_000, "batch_size": 4}


def probe(out: Path, *, workers: int, **options: Any) -> tuple[Results, list[Event]]:
    events: list[Event] = []
    listeners = [events.append, *options.pop("listeners", [])]
    settings = {"steps": 30, "batch_size": 4} | options.pop("settings", {})
    results = probe_models(
        ["bigram", "gru.tiny"], "parity", out, seeds=2, settings=settings, workers=workers, listeners=listeners
    )
    return results, events


def lasting(results: Results) -> list[Any]:
    return [dataclasses.replace(cell, seconds=0.0) for cell in results.cells]


def test_schedule_finds_the_same_with_several_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.01)
    one, _ = probe(tmp_path / "one", workers=1)
    two, events = probe(tmp_path / "two", workers=2)
    assert lasting(two) == lasting(one)
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["probes.json"]
    states = [event.cells for event in events if isinstance(event, CellsEvent)]
    assert max(sum(cell.state == "running" for cell in cells) for cells in states) == 2
    assert [cell.state for cell in states[-1]] == ["done"] * 4
    assert sum(isinstance(event, EndEvent) for event in events) == 1
    assert not any(isinstance(event, StartEvent) for event in events)
    notes = [event.message for event in events if isinstance(event, NoteEvent)]
    assert sum(": accuracy 0." in note or ": accuracy 1." in note for note in notes) == 4
    assert multiprocessing.active_children() == []


def test_schedule_stopped_by_ctrl_c_continues_from_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.01)
    stopped: list[Event] = []

    def interrupt(event: Event) -> None:
        running = event.cells if isinstance(event, CellsEvent) else []
        if sum(cell.step > 0 for cell in running) == 2 and not stopped:
            stopped.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped after 0 of 4 cells; the same command continues"):
        probe(tmp_path, workers=2, settings=LONG, listeners=[interrupt])
    assert multiprocessing.active_children() == []
    assert len(list((tmp_path / "unfinished").glob("*/checkpoints/step-*"))) == 2, "both were saved"
