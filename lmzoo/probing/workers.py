"""Does the jobs of a probing: one after the other in this process, or several at once in processes of their own.

A job checks a model, or trains a cell. The state of a cell is in its run directory, so a job that is lost with its
process is done again from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from lmzoo import files, plugins, registry
from lmzoo.compare.engine import STOP_SECONDS, plugin_sources, portable_error
from lmzoo.compare.jobs import Alone, Engine
from lmzoo.compare.processes import Processes, available_cores
from lmzoo.compare.workers import choose_workers
from lmzoo.conformance import ranking_problem
from lmzoo.hardware import default_device, usable_device
from lmzoo.probing.cell import train_cell
from lmzoo.probing.plan import Cell
from lmzoo.probing.results import CellResult
from lmzoo.runs.lock import locked, wait_until_unlocked
from lmzoo.train.events import EndEvent, Event, Listener, NoteEvent, StepEvent

PROGRESS_FILE = "progress.json"  # [step, loss] of a cell that is trained in another process
PROGRESS_SECONDS = 0.5  # between two writes of it
_MAX_BYTES = 1 << 10


@dataclass(frozen=True)
class Job:
    """Check the model of a cell, or train the cell in the directory `run`."""

    kind: Literal["check", "train"]
    cell: Cell
    run: Path

    @property
    def label(self) -> str:
        """The name of the cell."""
        return self.cell.title


@dataclass(frozen=True)
class Done:
    """The end of a job: a result, the problem of a model, or an error that ends the command."""

    job: Job
    result: CellResult | None = None
    problem: str = ""
    error: BaseException | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Setup:
    """All that a worker needs: plain values, which can be pickled."""

    device: str
    keep_freed_memory: bool
    threads: int
    plugins: Sequence[str]  # files and modules that registered models

    def make_worker(self) -> Worker:
        """Make a worker in this process."""
        return Worker(self)

    def failed(self, job: Job, error: BaseException) -> Done:
        """Return the end of a job whose worker could not be made."""
        return Done(job, error=error)


def execute(setup: Setup, job: Job, emit: Listener) -> Done:
    """Do a job. An interrupt of its training is raised, every other error returned."""
    try:
        if job.kind == "check":
            return Done(job, problem=ranking_problem(job.cell.spec.model))
        device = torch.device(setup.device)
        return Done(job, train_cell(job.cell, job.run, emit, device, keep_freed_memory=setup.keep_freed_memory))
    except (Exception, SystemExit) as error:  # one model of a plug-in must not abandon the others
        problem = plugins.blame(error, registry.registered_classes())
        return Done(job, error=error) if problem is None else Done(job, problem=problem)


def execute_here(setup: Setup, emit: Listener, job: Job) -> Done:
    """Do a job in this process, where `emit` hears its events."""
    try:
        return execute(setup, job, emit)
    finally:
        if job.kind == "train":
            emit(EndEvent())


class Worker:
    """Does jobs in a process of its own; writes the progress of a training into its run directory."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        for source in setup.plugins:
            registry.load_plugin(source)
        self._setup = setup

    def do(self, job: Job) -> Done:
        """Do a job; the result can be pickled."""
        notes: list[str] = []
        written = 0.0

        def hear(event: Event) -> None:
            nonlocal written
            if isinstance(event, NoteEvent):
                notes.append(event.message)
            elif isinstance(event, StepEvent) and time.monotonic() - written >= PROGRESS_SECONDS:
                written = time.monotonic()
                (job.run / PROGRESS_FILE).write_text(json.dumps([event.step, event.loss]))

        with warnings.catch_warnings(record=True) as caught:
            if job.kind == "check":
                done = execute(self._setup, job, hear)
            else:
                wait_until_unlocked(job.run, STOP_SECONDS)  # of a command that was killed
                with locked(job.run):
                    done = execute(self._setup, job, hear)
        notes += [f"warning: {warning.message}" for warning in caught]
        error = None if done.error is None else portable_error(done.error)
        return dataclasses.replace(done, error=error, notes=[f"{job.label}: {note}" for note in notes])


def read_progress(run: Path) -> tuple[int, float | None]:
    """Read the step and the loss of a cell that is trained in another process; (0, None) before its first step."""
    try:
        step, loss = files.parse_json(files.read_bytes(run / PROGRESS_FILE, _MAX_BYTES))
        return int(step), float(loss)
    except (OSError, ValueError, TypeError):
        return 0, None


def choose_device(device: str | None) -> str:
    """Return the device to train on: as given, or a GPU if torch finds one. Raises `ConfigError`."""
    return (default_device() if device is None else usable_device(device)).type


def choose_processes(workers: int | None, device: str, cells: int) -> int:
    """Return the number of cells to train at once: as given, or one for each CPU core, and one on a GPU.

    Raises `ConfigError`.
    """
    if workers is None:
        return 1 if device == "cuda" else max(1, min(len(available_cores()), cells))
    return min(choose_workers(workers, "processes", runs=cells, one_each=False), max(1, cells))


def make_engine(
    device: str, workers: int, threads: int, emit: Listener, *, keep_freed_memory: bool
) -> Engine[Job, Done]:
    """Return the engine: this process for one worker."""
    setup = Setup(device, keep_freed_memory, threads, plugin_sources())
    return Alone(partial(execute_here, setup, emit)) if workers == 1 else Processes(setup, workers)
