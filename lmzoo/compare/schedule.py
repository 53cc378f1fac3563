"""Runs all cells of a comparison on an engine, seed by seed, and writes the results so far now and then.

All models are checked first, and the results of finished runs are read. Then the workers measure what each model costs,
from which the time of all runs is forecast, and each free worker takes the next cell, of the longest ones first: with
`--tune`, of any model that has one, so that no worker waits for a model that must choose.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from lmzoo import humanize
from lmzoo.compare.course import Course, Part
from lmzoo.compare.engine import Done, Job
from lmzoo.compare.forecast import Cost
from lmzoo.compare.grid import RUNS, Measured
from lmzoo.compare.jobs import Alone, Engine
from lmzoo.compare.measure import Measurer
from lmzoo.compare.prediction import Prediction
from lmzoo.compare.results import ModelResult, Results
from lmzoo.compare.statistics import Statistics, analyze
from lmzoo.compare.tuning import with_found
from lmzoo.distributed.ranks import ALONE
from lmzoo.runs.metrics import last_step
from lmzoo.train.events import CellsEvent, CellState, EndEvent, Listener, NoteEvent
from lmzoo.train.signals import Interrupted, StopRequest, stop_request

POLL_SECONDS = 0.5
WRITING_SHARE = 0.02  # largest share of the time for reports of results so far

Write = Callable[[Results], None]
Kind = Literal["check", "time", "measure"]


class Schedule:
    """The state of a comparison: the courses of its models, the engine, and the prediction of its time."""

    def __init__(
        self,
        results: Results,
        courses: Sequence[Course],
        engine: Engine[Job, Done],
        measurer: Measurer,
        emit: Listener,
        later: Mapping[str, float] | None = None,
    ) -> None:
        """`later` is the work that follows, of probes: for each model, how many of its steps take as long."""
        self._results, self._courses, self._engine, self._measurer = results, courses, engine, measurer
        self._emit, self._later = emit, later or {}
        self._by_model = {course.first.model: course for course in courses}
        self._prediction = Prediction(courses, measurer, engine.workers, results.seed)
        self._timed: list[Job] = []
        self._problems: dict[str, str] = {}  # that were shown
        self._unwritten, self._next_write = False, 0.0

    def run(self, folder: Path, write: Write, *, forecast: bool) -> Results:
        """Run everything; `write` is called with the results so far. `forecast`: state the total time before."""
        alone = isinstance(self._engine, Alone)
        try:
            with nullcontext() if alone else stop_request(ALONE) as stop:
                self._loop(write, stop, "check")
                self._read_finished()
                missing = self._missing()
                if missing and forecast:
                    self._loop(write, stop, "time")
                    self._forecast(missing)
                self._prediction.begin()
                self._loop(write, stop, "measure")
        except BaseException:
            if self._unwritten:  # what has ended since the last report
                self._write_part(write)
            raise
        finally:
            self._engine.stop()
            self._emit(EndEvent())
        for course in self._courses:  # nothing else runs now
            if course.first_cell is not None and not course.failed:
                cell, measured = course.first_cell
                course.add_speeds(self._measurer.add_speeds(cell, measured))
        if missing:
            spent = humanize.duration(self._prediction.spent())
            self._emit(NoteEvent(f"{humanize.number(missing, 'run')} took {spent}, results in {folder}"))
        results = self._so_far(complete=True)
        write(results)
        return results

    def _loop(self, write: Write, stop: StopRequest | None, kind: Kind) -> None:
        """Run all jobs of a kind; returns when nothing is left."""
        running = 0
        while True:
            running += self._submit(kind, running)
            if not running:
                return
            ended = self._engine.wait(POLL_SECONDS)
            for done in ended:
                running -= 1
                self._take(done)
            if not isinstance(self._engine, Alone):  # no worker waits until the report is written
                running += self._submit(kind, running)
            if kind == "measure" and any(self._by_model[done.job.cell.model].row() is not None for done in ended):
                self._unwritten = True
            if self._unwritten and time.monotonic() >= self._next_write:
                self._write_part(write)
            if stop is not None:
                stop.look()
                if stop.signal_number is not None:
                    raise self._interrupted(stop.signal_number)
                if kind == "measure":
                    self._emit(CellsEvent(self._states(), self._prediction.left()))

    def _write_part(self, write: Write) -> None:
        """Write the results so far, and wait before the next time so that short runs do not end in long reports."""
        began = time.monotonic()
        write(self._so_far(complete=False))
        ended = time.monotonic()
        self._unwritten, self._next_write = False, ended + (ended - began) / WRITING_SHARE

    def _submit(self, kind: Kind, running: int) -> int:
        """Begin as many jobs as there are workers without one; returns their number."""
        free = self._engine.workers - running
        if not free:  # twice a second, and naming all jobs takes milliseconds
            return 0
        jobs = self._next(kind)[:free]
        for job in jobs:
            self._begin(job)
            self._engine.submit(job)
        return len(jobs)

    def _read_finished(self) -> None:
        """Take the results of all runs that are finished, so that only what is missing is forecast."""
        found = True
        while found:
            found = False
            for course in self._courses:
                for _, job in course.ready():
                    kept = self._measurer.kept(job.cell, job.config, job.until)
                    if kept is not None:
                        course.begin(job)
                        self._take(Done(job, kept))
                        found = True

    def _begin(self, job: Job) -> None:
        if job.kind == "time":
            self._timed.append(job)
        else:
            self._by_model[job.cell.model].begin(job)
            self._announce(job)

    def _next(self, kind: Kind) -> list[Job]:
        """Return the jobs that can run, in their order: by seed, and if several run at once, the longest first."""
        if kind == "time":
            jobs = [Job("time", course.first) for course in self._courses if any(course.left())]
            return [job for job in jobs if job not in self._timed]
        found = []
        for number, course in enumerate(self._courses):
            for turn, job in course.ready():
                if job.kind == kind:
                    end = job.cell.spec.train.steps if job.until is None else job.until
                    part = Part(job.cell, 0, end, trial=job.until is not None)
                    longest_first = -self._prediction.of_part(part) if self._engine.workers > 1 else 0.0
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
            what += f" up to step {job.until:,}" if job.until is not None else ""
            count = "" if what else f" ({turn * total + number} of {total * len(seeds)})"
            self._emit(NoteEvent(f"{name}{'' if what else seed}{count}: training{what}"))

    def _take(self, done: Done) -> None:
        for note in done.notes:
            self._emit(NoteEvent(note))
        if done.error is not None:
            raise done.error
        course = self._by_model[done.job.cell.model]
        if done.job.kind == "time":  # a plug-in that cannot be timed shows its problem in its first run
            if isinstance(done.value, Cost):
                self._prediction.take(done.job.cell.model, done.value)
            return
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
        known = {name: found for name, found in tuned.items() if found and name in shown}
        tuning = with_found(self._results.tuning, known, models) if self._results.tuning else {}
        statistics = _statistics(models) if len(models) == len(self._courses) else None
        return dataclasses.replace(
            self._results, models=models, statistics=statistics, tuning=tuning, complete=complete
        )

    def _missing(self) -> int:
        """Return the number of runs that are not finished, as far as they are known."""
        parts = (part for course in self._courses for group in course.left() for part in group)
        return len({part.cell.label for part in parts if part.start < part.end})

    def _forecast(self, missing: int) -> None:
        """State the time of all runs, from what the models cost."""
        workers = self._engine.workers
        at_once = f", {workers} at once" if workers > 1 else ""
        probes = self._prediction.of_steps(self._later) / workers
        total = humanize.duration(self._prediction.of_all() + probes)
        more = f", of which probes about {humanize.duration(probes)}" if probes else ""
        more += ", and more where the grid is widened" if self._measurer.halves else ""
        self._emit(NoteEvent(f"{humanize.number(missing, 'run')}{at_once}: about {total}{more}"))

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
        done = sum(state.state in ("done", "diverged", "stopped") for state in states)
        stop = Interrupted(0, self._courses[0].first.run, signal_number)
        runs = humanize.number(len(states), "run")
        stop.args = (f"stopped after {done} of {runs}; the same command continues the comparison",)
        return stop


def _ended(label: str, steps: int, measured: Measured) -> CellState:
    cell = measured.cell
    loss = cell.selection_loss if cell.loss is None else cell.loss  # a run of a search has only one of them
    return CellState(label, "done" if cell.status == "trained" else cell.status, steps, steps, loss)


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
