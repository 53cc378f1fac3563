"""Tests comparisons in several processes: the results of one process, real kills, and interrupts."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmzoo.compare import Results, compare, engine, processes, schedule, workers
from lmzoo.compare.processes import Processes, divide_cores
from lmzoo.errors import ConfigError, LostProcessError
from lmzoo.train.events import CellsEvent, Event, NoteEvent
from lmzoo.train.signals import Interrupted
from tests.compare.small import (
    NAMES,
    SEEDS,
    SETTINGS,
    TUNE,
    FrozenObjects,
    Question,
    serve_short_samples,
    write_text,
    written,
)

LONG = {"steps": 100_000, "batch_size": 4, "context_length": 16}  # of bigram


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "POLL_SECONDS", 0.01)
        patch.setattr(processes, "serve", serve_short_samples)
        yield


def two_workers(text: str, out: Path, *listeners: Callable[[Event], None]) -> Results:
    return compare(NAMES, text, out, seeds=SEEDS, tune=TUNE, settings=SETTINGS, workers=2, listeners=listeners)


@pytest.fixture(scope="module")
def undisturbed(text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path, list[Event]]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    events: list[Event] = []
    return two_workers(text, out, events.append), out, events


def test_processes_find_what_one_process_finds(
    undisturbed: tuple[Results, Path, list[Event]], text: str, tmp_path: Path
) -> None:
    compare(NAMES, text, tmp_path, seeds=SEEDS, tune=TUNE, settings=SETTINGS)
    alone, several = written(tmp_path), written(undisturbed[1])
    assert {cell.pop("at_once") for row in alone["models"] for cell in row["cells"]} == {1}
    assert {cell.pop("at_once") for row in several["models"] for cell in row["cells"]} == {2}
    assert alone == several
    results, _, events = undisturbed
    assert all(row.train_tokens_per_s and row.decode_tokens_per_s for row in results.models)
    assert max(sum(c.state == "running" for c in e.cells) for e in events if isinstance(e, CellsEvent)) == 2
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_processes_do_a_job_again_whose_worker_was_killed(
    seed: int, undisturbed: tuple[Results, Path, list[Event]], text: str, tmp_path: Path
) -> None:
    wait_for = random.Random(seed).randint(1, 60)
    killed: list[int] = []

    def kill(event: Event) -> None:
        steps = sum(cell.step for cell in event.cells) if isinstance(event, CellsEvent) else 0
        alive = [child.pid for child in multiprocessing.active_children() if child.pid not in (None, *killed)]
        if steps >= wait_for and len(killed) < 2 and alive:
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    two_workers(text, tmp_path, kill)
    assert len(set(killed)) == 2
    assert written(tmp_path) == written(undisturbed[1])


def test_processes_give_up_a_job_that_kills_its_worker(text: str, tmp_path: Path) -> None:
    def kill_all(event: Event) -> None:
        if isinstance(event, CellsEvent):
            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises(LostProcessError, match=r"made runs/.* was killed 3 times .*: the same command continues"):
        compare(["bigram"], text, tmp_path, seeds=2, settings=LONG, workers=2, listeners=[kill_all])
    assert multiprocessing.active_children() == []


def test_serve_returns_the_error_of_a_plugin_that_it_cannot_import(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = engine.make_setup
    broken = lambda *setup: dataclasses.replace(plain(*setup), plugins=["no_such_module"])  # noqa: E731
    monkeypatch.setattr(workers, "make_setup", broken)
    with pytest.raises(ConfigError, match="plugin='no_such_module' cannot be imported"):
        compare(["bigram"], text, tmp_path, seeds=2, settings=LONG, workers=2)


def test_stop_lets_each_run_save(text: str, tmp_path: Path) -> None:
    notes: list[str] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, NoteEvent):
            notes.append(event.message)
        if isinstance(event, CellsEvent) and sum(cell.step > 0 for cell in event.cells) == 2 and not stopped:
            stopped.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    stopped: list[Event] = []
    settings = LONG | {"log_every": 1, "checkpoint_every": 100_000}
    with pytest.raises(Interrupted, match="stopped after 0 of 2 runs; the same command continues the comparison"):
        compare(["bigram"], text, tmp_path, seeds=2, settings=settings, workers=2, listeners=[interrupt])
    assert multiprocessing.active_children() == []
    for run in ("bigram", "bigram,seed=1338"):
        assert list((tmp_path / "runs" / run / "checkpoints").glob("step-*")), "it was saved when it was stopped"
    assert any(note.startswith("2 runs, 2 at once: about ") for note in notes)


def test_processes_say_that_the_server_was_killed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(process: object) -> None:  # the server is killed between two system calls, which no test can time
        raise EOFError("unexpected EOF")

    monkeypatch.setattr("multiprocessing.context.ForkServerProcess.start", killed)
    with pytest.raises(LostProcessError, match="the process that starts the workers was killed"):
        compare(["bigram"], text, tmp_path, seeds=2, settings=LONG, workers=2)


def test_serve_ends_with_its_parent(undisturbed: tuple[Results, Path, list[Event]], text: str, tmp_path: Path) -> None:
    """The command is killed while two runs are made: its workers save and end, and the command goes on."""
    options = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    where = ["--data", text, "--out", str(tmp_path), "--tune", TUNE, "--seeds", str(SEEDS), "--workers", "2"]
    command = [sys.executable, "-m", "lmzoo", "compare", *NAMES, *where, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        next(line for line in parent.stderr if ": running" in line)
        workers = [pid for pid in descendants(parent.pid) if "forkserver" in command_of(pid)]
        assert len(workers) >= 2
        parent.kill()
    deadline = time.monotonic() + 60
    while any(command_of(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker has outlived its parent"
        time.sleep(0.05)
    two_workers(text, tmp_path)
    found, expected = written(tmp_path), written(undisturbed[1])
    for row in [*found["models"], *expected["models"]]:
        del row["sample"]  # the command makes a longer one
    assert found == expected


def test_serve_looks_for_no_garbage_among_the_imported_modules() -> None:
    workers = Processes(FrozenObjects(), 1)
    workers.submit(Question())
    (count,) = workers.wait(60)
    workers.stop()
    assert count > 50_000, "the objects of torch's modules"


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(found for child in children for found in descendants(child))]


def command_of(pid: int) -> str:
    """Return the command of a process, empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_divide_cores_gives_each_worker_its_own() -> None:
    assert divide_cores([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3, 4]]
    assert divide_cores([3, 7], 2) == [[3], [7]]
    assert divide_cores([3, 7], 3) == [[3], [7], [3]]
    assert processes.STOP_SECONDS == engine.STOP_SECONDS
