"""Runs cells on an engine: all models are checked first, then each free worker takes the next cell."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from lmzoo import humanize
from lmzoo.compare.jobs import Alone, Engine
from lmzoo.distributed.ranks import ALONE
from lmzoo.probing.plan import Cell
from lmzoo.probing.results import CellResult, Results
from lmzoo.probing.workers import Done, Job, read_progress
from lmzoo.storage import atomic
from lmzoo.train.events import CellsEvent, CellState, EndEvent, Listener, NoteEvent
from lmzoo.train.signals import Interrupted, StopRequest, stop_request

POLL_SECONDS = 0.5
UNFINISHED = "unfinished"  # folder of the run directories of cells that were interrupted


class Schedule:
    """The state of a probing: which cells are done or running. `write` is called with the results so far."""

    def __init__(
        self,
        results: Results,
        left: Sequence[Cell],
        folder: Path,
        engine: Engine[Job, Done],
        emit: Listener,
        write: Callable[[Results], None],
    ) -> None:
        self._results, self._left, self._folder = results, left, folder
        self._engine, self._emit, self._write = engine, emit, write
        self._found: dict[tuple[str, str, str, int], CellResult] = {}
        self._running: list[Job] = []
        self._problems: dict[str, str] = {}  # of models that failed a check
        self._began = 0.0

    def run(self) -> Results:
        """Run all cells; returns the results of the directory."""
        firsts = {cell.spec.model: cell for cell in reversed(self._left)}
        checks = [self._job("check", firsts[name]) for name in dict.fromkeys(cell.spec.model for cell in self._left)]
        here = isinstance(self._engine, Alone)
        try:
            with nullcontext() if here else stop_request(ALONE) as stop:
                self._loop(checks, stop)
                self._began = time.monotonic()
                self._loop([self._job("train", cell) for cell in self._left], stop)
        finally:
            self._engine.stop()
            if not here:
                self._emit(EndEvent())  # of the table; in this process each cell ends its bar
        return self._so_far()

    def _job(self, kind: str, cell: Cell) -> Job:
        run = self._folder / UNFINISHED / cell.settings_hash
        return Job("check" if kind == "check" else "train", cell, run)

    def _loop(self, jobs: Sequence[Job], stop: StopRequest | None) -> None:
        """Run the jobs; returns when all have ended."""
        waiting = [*jobs]
        while waiting or self._running:
            while waiting and len(self._running) < self._engine.workers:
                job = waiting.pop(0)
                problem = self._problems.get(job.cell.spec.model, "") if job.kind == "train" else ""
                if problem:
                    self._keep(job, _failed(job.cell, problem))
                    continue
                self._announce(job)
                self._running.append(job)
                self._engine.submit(job)
            for done in self._engine.wait(POLL_SECONDS) if self._running else ():
                self._take(done)
            if stop is not None:
                stop.look()
                if stop.signal_number is not None:
                    raise self._interrupted(stop.signal_number)
                if self._began:
                    self._emit(CellsEvent(self._states(), self._seconds_left()))

    def _announce(self, job: Job) -> None:
        """Name the job in one line, if no table shows it."""
        if job.kind == "check":
            self._emit(NoteEvent(f"{job.cell.spec.model}: checking"))
        elif isinstance(self._engine, Alone):
            seconds = self._seconds_left()
            time_left = "" if seconds is None else f", about {humanize.duration(seconds)} left"
            self._emit(NoteEvent(f"cell {self._left.index(job.cell) + 1} of {len(self._left)}{time_left}"))

    def _take(self, done: Done) -> None:
        job = next(job for job in self._running if job.kind == done.job.kind and job.cell.key == done.job.cell.key)
        self._running.remove(job)
        for note in done.notes:
            self._emit(NoteEvent(note))
        if done.error is not None:
            raise done.error
        if job.kind == "check":
            self._problems[job.cell.spec.model] = done.problem
        else:
            self._keep(job, done.result or _failed(job.cell, done.problem))

    def _keep(self, job: Job, result: CellResult) -> None:
        """Write the result of a cell, then remove its run directory."""
        cell = job.cell
        if result.problem:
            self._emit(NoteEvent(f"{cell.title} {result.status}: {result.problem}"))
        else:
            self._emit(NoteEvent(f"{cell.title}: {_accuracies(cell, result)}"))
        self._found[cell.key] = result
        self._write(self._so_far())
        if job.run.exists():
            atomic.remove_folder(job.run)
        if job.run.parent.is_dir() and not any(job.run.parent.iterdir()):
            job.run.parent.rmdir()

    def _so_far(self) -> Results:
        """Return the results with the new cells in the order of the plan, whichever ended first."""
        new = [self._found[cell.key] for cell in self._left if cell.key in self._found]
        return dataclasses.replace(self._results, cells=[*self._results.cells, *new])

    def _seconds_left(self) -> float | None:
        """Return the seconds until the last cell is done, from the tokens per second so far; None at the start."""
        total = sum(cell.tokens for cell in self._left if not self._problems.get(cell.spec.model))
        done = sum(cell.tokens for cell in self._left if cell.key in self._found)
        for job in self._running:
            step, _ = read_progress(job.run)
            done += job.cell.tokens * step // job.cell.spec.train.steps
        return (time.monotonic() - self._began) * (total - done) / done if done else None

    def _states(self) -> list[CellState]:
        running = {job.cell.key: job for job in self._running}
        found = []
        for cell in self._left:
            steps, result = cell.spec.train.steps, self._found.get(cell.key)
            if result is not None:
                found.append(
                    CellState(cell.title, "done" if result.status == "trained" else result.status, steps, steps)
                )
            elif cell.key in running:
                step, loss = read_progress(running[cell.key].run)
                found.append(CellState(cell.title, "running", step, steps, loss))
            else:
                found.append(CellState(cell.title, steps=steps))
        return found

    def _interrupted(self, signal_number: int) -> Interrupted:
        stop = Interrupted(0, self._folder, signal_number)
        stop.args = (f"stopped after {len(self._found)} of {len(self._left)} cells; the same command continues",)
        return stop


def _failed(cell: Cell, problem: str) -> CellResult:
    return CellResult(
        model=cell.model,
        probe=cell.probe.name,
        difficulty=cell.difficulty,
        seed=cell.seed,
        status="failed",
        problem=problem,
        settings=cell.settings,
    )


def _accuracies(cell: Cell, result: CellResult) -> str:
    found = ((cell.level.trained, result.accuracy_trained), (cell.level.tested, result.accuracy_tested))
    return ", ".join(f"accuracy {value:.3f} at length {length}" for length, value in found)
