"""Runs all cells of a comparison on an engine, seed by seed, and writes the results after each.

All models are checked first. Then the time of all runs is forecast, and each free worker takes the next cell, of the
longest ones first: with `--tune`, of any model that has one, so that no worker waits for a model that must choose.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from lmzoo import humanize
from lmzoo.compare.course import Course
from lmzoo.compare.engine import Alone, Done, Engine, Job
from lmzoo.compare.forecast import Cost, cell_seconds, measure_cost, steps_done, total_seconds
from lmzoo.compare.grid import RUNS, Cell, Measured
from lmzoo.compare.measure import Measurer
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.statistics import Statistics, analyze
from lmzoo.distributed.ranks import ALONE
from lmzoo.runs.metrics import last_step
from lmzoo.train.events import CellsEvent, CellState, EndEvent, Listener, NoteEvent
from lmzoo.train.signals import Interrupted, StopRequest, stop_request

POLL_SECONDS = 0.5
TRUSTED_SHARE = 0.05  # of the work, after which the time left follows from the time spent

Write = Callable[[Results], None]


class Schedule:
    """The state of a comparison: the courses of its models, the engine, and what the runs cost."""

    def __init__(
        self, results: Results, courses: Sequence[Course], engine: Engine, measurer: Measurer, emit: Listener
    ) -> None:
        self._results, self._courses, self._engine, self._measurer = results, courses, engine, measurer
        self._emit = emit
        self._by_model = {course.first.model: course for course in courses}
        self._costs: dict[str, Cost] = {}
        self._problems: dict[str, str] = {}  # that were shown
        self._began, self._work = time.monotonic(), 0.0  # predicted seconds of one worker

    def run(self, folder: Path, write: Write, *, forecast: bool) -> Results:
        """Run everything; `write` is called with the results so far. `forecast`: state the total time before."""
        alone = isinstance(self._engine, Alone)
        try:
            with nullcontext() if alone else stop_request(ALONE) as stop:
                self._loop(write, stop, checks=True)
                missing = self._missing()
                if missing and forecast:
                    self._forecast(missing)
                self._began = time.monotonic()
                self._loop(write, stop, checks=False)
        finally:
            self._engine.stop()
            self._emit(EndEvent())
        for course in self._courses:  # nothing else runs now
            if course.first_cell is not None and not course.failed:
                cell, measured = course.first_cell
                course.add_speeds(self._measurer.add_speeds(cell, measured))
        if missing:
            spent = humanize.duration(time.monotonic() - self._began)
            self._emit(NoteEvent(f"{_runs(len(missing))} took {spent}, results in {folder}"))
        results = self._so_far(complete=True)
        write(results)
        return results

    def _loop(self, write: Write, stop: StopRequest | None, *, checks: bool) -> None:
        """Run the checks, or all else; returns when nothing is left."""
        running = 0
        while True:
            for job in self._next(checks)[: self._engine.workers - running]:
                self._by_model[job.cell.model].begin(job)
                self._announce(job)
                self._engine.submit(job)
                running += 1
            if not running:
                return
            for done in self._engine.wait(POLL_SECONDS):
                running -= 1
                self._take(done)
                if not checks and self._by_model[done.job.cell.model].row() is not None:
                    write(self._so_far(complete=False))
            if stop is not None:
                stop.look()
                if stop.signal_number is not None:
                    raise self._interrupted(stop.signal_number)
                if not checks:
                    self._emit(CellsEvent(self._states(), self._seconds_left()))

    def _next(self, checks: bool) -> list[Job]:
        """Return the jobs that can run, in their order: by seed, and if several run at once, the longest first."""
        found = []
        for number, course in enumerate(self._courses):
            for turn, job in course.ready():
                if (turn < 0) == checks:
                    longest_first = -self._seconds(job.cell, None) if self._engine.workers > 1 else 0.0
                    found.append(((turn, longest_first, number), job))
        return [job for _, job in sorted(found, key=lambda entry: entry[0])]

    def _announce(self, job: Job) -> None:
        """Name the job in one line, if no table shows it."""
        names = [course.first.model for course in self._courses]
        name, seeds = job.cell.model, self._results.seeds
        number, total = names.index(name) + 1, len(names)
        if job.kind == "check":
            self._emit(NoteEvent(f"{name} ({number} of {total}): checking"))
        elif isinstance(self._engine, Alone):
            turn = list(seeds).index(job.cell.seed)
            seed = f" with seed {job.cell.seed}" if len(seeds) > 1 else ""
            tuned = job.cell.label.partition(",")[2] if job.config is None and not turn else ""
            what = f" with {tuned}" if tuned else ""
            count = "" if what else f" ({turn * total + number} of {total * len(seeds)})"
            self._emit(NoteEvent(f"{name}{'' if what else seed}{count}: training{what}"))

    def _take(self, done: Done) -> None:
        for note in done.notes:
            self._emit(NoteEvent(note))
        if done.error is not None:
            raise done.error
        course = self._by_model[done.job.cell.model]
        course.take(done)
        row = course.row()
        if row is not None and row.problem and self._problems.get(row.name) != row.problem:
            self._problems[row.name] = row.problem
            self._emit(NoteEvent(f"{row.name} {row.status}: {row.problem}"))

    def _so_far(self, *, complete: bool) -> Results:
        rows = (course.row() for course in self._courses)
        models = [row for row in rows if row is not None and (row.cells or row.status == "failed")]
        tuned = {course.first.model: course.tuned() for course in self._courses}
        shown = {row.name for row in models}
        known = {name: found for name, found in tuned.items() if found is not None and name in shown}
        tuning = {**self._results.tuning, "models": known} if self._results.tuning else {}
        return dataclasses.replace(
            self._results, models=models, statistics=_statistics(models), tuning=tuning, complete=complete
        )

    def _missing(self) -> list[Cell]:
        """Return the cells that are not done yet, as far as they are known."""
        return [cell for course in self._courses for cell, _ in course.cells() if self._measurer.read(cell) is None]

    def _forecast(self, missing: Sequence[Cell]) -> None:
        """Measure what the models cost, and state the time of all runs."""
        data = self._measurer.data
        assert data.store is not None
        for name in dict.fromkeys(cell.model for cell in missing):
            first = self._by_model[name].first
            keep = self._measurer.keep_freed_memory
            self._costs[name] = measure_cost(first, data.tokenizer.vocab_size, data.store.val, keep)
        seconds = [self._seconds(cell, steps_done(cell)) for cell in missing]
        self._work = sum(seconds)
        workers = self._engine.workers
        at_once = f", {workers} at once" if workers > 1 else ""
        total = humanize.duration(total_seconds(sorted(seconds, reverse=True), workers))
        more = ", and more where the grid is widened" if self._measurer.halves else ""
        self._emit(NoteEvent(f"{_runs(len(missing))}{at_once}: about {total}{more}"))

    def _seconds(self, cell: Cell, done: int | None) -> float:
        """Return the predicted seconds of a cell, after `done` steps; 0 if nothing was measured."""
        cost, store = self._costs.get(cell.model), self._measurer.data.store
        if cost is None or store is None:
            return 0.0
        first = cell.seed == self._results.seed
        return cell_seconds(cell, cost, store.val, first=first, tuned=bool(self._measurer.halves), done=done or 0)

    def _seconds_left(self) -> float | None:
        """Return the seconds until the last run is done: as predicted, scaled by the time spent so far."""
        if not self._costs:
            return None
        left = []
        for course in self._courses:
            for cell, measured in course.cells():
                if measured is None:
                    step = last_step(cell.run) if course.running(cell) else None
                    left.append(self._seconds(cell, None if step is None else step[0]))
        workers, done = self._engine.workers, self._work - sum(left)
        spent = (time.monotonic() - self._began) * workers
        scale = spent / done if done > TRUSTED_SHARE * self._work else 1.0
        return total_seconds(sorted(left, reverse=True), workers) * scale

    def _states(self) -> list[CellState]:
        """Return the state of each cell."""
        found = []
        for course in self._courses:
            for cell, measured in course.cells():
                label, steps = cell.label.removeprefix(f"{RUNS}/"), cell.spec.train.steps
                if measured is not None:
                    found.append(_ended(label, steps, measured))
                elif course.running(cell):
                    step, loss = last_step(cell.run) or (0, None)
                    found.append(CellState(label, "running", step, steps, loss))
                else:
                    found.append(CellState(label, steps=steps))
        return found

    def _interrupted(self, signal_number: int) -> Interrupted:
        states = self._states()
        done = sum(state.state in ("done", "diverged") for state in states)
        stop = Interrupted(0, self._courses[0].first.run, signal_number)
        stop.args = (f"stopped after {done} of {_runs(len(states))}; the same command continues the comparison",)
        return stop


def _ended(label: str, steps: int, measured: Measured) -> CellState:
    diverged = measured.cell.status == "diverged"
    return CellState(label, "diverged" if diverged else "done", steps, steps, measured.cell.loss)


def _runs(number: int) -> str:
    return f"{number} runs" if number != 1 else "1 run"


def _statistics(models: Sequence[ModelResult]) -> Statistics | None:
    """Return the statistics of the seeds that are done for every ranked model; None for fewer than two."""
    losses = {
        model.name: {cell.seed: cell.loss for cell in model.cells if cell.loss is not None}
        for model in models
        if model.status == "ranked"
    }
    shared = [seed for seed in next(iter(losses.values()), {}) if all(seed in found for found in losses.values())]
    if len(shared) < 2:
        return None
    return analyze({name: [found[seed] for seed in shared] for name, found in losses.items()})
