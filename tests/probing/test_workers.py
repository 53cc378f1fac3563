"""Tests of the workers of a probing: what they do, what they write, and how many there are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.compare.jobs import Alone
from lmzoo.compare.processes import Processes, available_cores
from lmzoo.errors import ConfigError
from lmzoo.probing import workers
from lmzoo.probing.plan import Cell, make_cells
from lmzoo.probing.workers import (
    Job,
    Setup,
    choose_device,
    choose_processes,
    execute,
    execute_here,
    make_engine,
    read_progress,
)
from lmzoo.train.events import EndEvent, Event, StartEvent

SETUP = Setup("cpu", False, 1, [])


def ignore(event: Event) -> None:
    """Does nothing."""


@pytest.fixture
def cell() -> Cell:
    (cell,) = make_cells(["bigram"], "parity", "easy", steps=3, seeds=1, settings={"batch_size": 4})
    return cell


def test_execute_here_ends_the_events_of_a_training(cell: Cell, tmp_path: Path) -> None:
    events: list[Event] = []
    done = execute_here(SETUP, events.append, Job("train", cell, tmp_path / "run"))
    assert done.result is not None
    assert done.result.key == cell.key
    assert isinstance(events[0], StartEvent)
    assert isinstance(events[-1], EndEvent)


def test_execute_checks_the_model_of_the_registry(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def problem(name: str) -> str:
        asked.append(name)
        return "failed the checks causality"

    monkeypatch.setattr(workers, "ranking_problem", problem)
    done = execute(SETUP, Job("check", cell, tmp_path), ignore)
    assert (done.problem, asked) == ("failed the checks causality", ["bigram"])


def test_execute_returns_errors_and_raises_interrupts(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(workers, "train_cell", fail)
    error: BaseException = ConfigError("steps=0 is wrong")
    assert execute(SETUP, Job("train", cell, tmp_path), ignore).error is error
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        execute(SETUP, Job("train", cell, tmp_path), ignore)


def test_worker_writes_its_progress_and_returns_what_can_be_sent(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PROGRESS_SECONDS", 0.0)
    setup, job = pickle.loads(pickle.dumps((SETUP, Job("train", cell, tmp_path / "run"))))
    assert read_progress(job.run) == (0, None)
    done = pickle.loads(pickle.dumps(setup.make_worker().do(job)))
    assert done.error is None
    assert done.result.status == "trained"
    step, loss = read_progress(job.run)
    assert step == 3
    assert loss is not None
    assert 0 < loss < 3


def test_setup_failed_holds_the_error(cell: Cell, tmp_path: Path) -> None:
    error = ConfigError("plugin='x' cannot be imported")
    assert SETUP.failed(Job("train", cell, tmp_path), error).error is error


def test_choose_device_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert choose_device(None) == device
        assert choose_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="device='cuda' needs a GPU that torch can use"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="device='gpu' must be 'cpu' or 'cuda'"):
        choose_device("gpu")


def test_choose_processes_gives_each_core_one_cell() -> None:
    cores = len(available_cores())
    assert choose_processes(None, "cpu", 100) == cores
    assert choose_processes(None, "cpu", 1) == choose_processes(None, "cpu", 0) == 1
    assert choose_processes(None, "cuda", 100) == 1
    assert choose_processes(2, "cuda", 100) == 2
    assert choose_processes(2, "cpu", 1) == 1
    with pytest.raises(ConfigError, match="workers=0 must be an integer in"):
        choose_processes(0, "cpu", 3)


def test_make_engine_uses_processes_for_several_workers() -> None:
    assert isinstance(make_engine("cpu", 1, 1, ignore, keep_freed_memory=False), Alone)
    engine = make_engine("cpu", 2, 1, ignore, keep_freed_memory=False)
    assert isinstance(engine, Processes)
    engine.stop()
