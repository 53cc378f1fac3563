"""The course of one model through a comparison: its check, the runs that tune settings, and a run for each seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmzoo.compare.engine import Done, Job
from lmzoo.compare.grid import Cell, Measured, combine, make_cell, with_seed
from lmzoo.compare.results import STOPPED, ModelResult, portable
from lmzoo.compare.search import Point, Search, Stage, Trial
from lmzoo.compare.tune import with_values


@dataclass(frozen=True)
class Part:
    """Steps of a run that are still to be made, after `start` and up to `end`; `trial`: the run is one of a search."""

    cell: Cell
    start: int
    end: int
    trial: bool = False


class Course:
    """Tells which jobs of a model can run, and takes their results.

    The values of a grid can be tried at the same time; the runs of further seeds follow when all settings are chosen.
    A job has a turn: -1 for the check, else the number of the seed.
    """

    def __init__(self, first: Cell, seeds: Sequence[int], search: Search | None, folder: Path, vocab_size: int) -> None:
        self.first, self._seeds, self._search = first, seeds, search
        self._folder, self._vocab_size = folder, vocab_size
        self.base: ModelResult | None = None  # without runs
        self._chosen: Cell | None = None
        self._trials: dict[Trial, Measured] = {}
        self._measured: dict[int, Measured] = {}
        self._begun: list[Job] = []
        self._running: list[Job] = []
        # Kept between two changes, because the table on the terminal asks for both twice a second.
        self._cells: list[tuple[Cell, Measured | None]] | None = None
        self._left: list[list[Part]] | None = None

    @property
    def failed(self) -> bool:
        """True for a model that failed its check, or a plug-in that raised."""
        return self.base is not None and self.base.status == "failed"

    def ready(self) -> list[tuple[int, Job]]:
        """Return the jobs that can run now, with their turns."""
        jobs: list[tuple[int, Job]] = []
        if self.base is None:
            jobs = [(-1, Job("check", self.first))]
        elif self.failed:
            pass
        elif self._chosen is None:
            assert self._search is not None
            jobs = [(0, self._job(trial)) for trial in self._search.ready()]
        else:
            cells = enumerate(self.seed_cells())
            jobs = [(turn, Job("measure", cell, None if turn else self.base.config)) for turn, cell in cells]
        return [(turn, job) for turn, job in jobs if job not in self._begun]

    def begin(self, job: Job) -> None:
        """Note that a job runs."""
        self._begun.append(job)
        self._running.append(job)
        self._cells = self._left = None

    def take(self, done: Done) -> None:
        """Take the result of a job."""
        self._running.remove(done.job)
        self._cells = self._left = None
        value = done.value
        if done.problem:
            known = self.base or ModelResult(name=self.first.model)  # with its costs, if its checks are over
            self.base = dataclasses.replace(known, status="failed", problem=portable(done.problem))
        elif isinstance(value, ModelResult):
            self.base = value
            if not self.failed and not self._has_steps():
                self._search = None
            if not self.failed and self._search is None:
                self._chosen = self.first
        elif isinstance(value, Measured) and self._chosen is None and self._search is not None:
            self._take_trial(done.job, value)
        elif isinstance(value, Measured):
            self._measured[done.job.cell.seed] = value

    def _take_trial(self, job: Job, measured: Measured) -> None:
        """Take the result of a trial; choose the recipe when it was the last one that is needed."""
        assert self._search is not None
        trial = next(trial for trial in self._search.ready() if self._job(trial) == job)
        loss = measured.cell.selection_loss
        self._trials[trial] = measured
        self._search.take(trial, math.inf if loss is None else loss)
        if self._search.chosen is not None:
            self._chosen = self._trial_cell(self._search.chosen)

    def seed_cells(self) -> list[Cell]:
        """Return a cell for each seed, with the chosen settings, or with the preset's until they are chosen."""
        chosen = self._chosen or self.first
        found = (with_seed(chosen.spec, seed) for seed in self._seeds)
        return [
            chosen if spec == chosen.spec else make_cell(self._folder, spec, self.first.spec, chosen.model)
            for spec in found
        ]

    def cells(self) -> list[tuple[Cell, Measured | None]]:
        """Return all cells that are known, the runs of the search first, each with its result if its run is over."""
        if self._cells is None:
            self._cells = self._list_cells()
        return self._cells

    def _list_cells(self) -> list[tuple[Cell, Measured | None]]:
        if self.failed:
            return []
        found = [(cell, self._measured.get(cell.seed)) for cell in self.seed_cells()]
        if self._search is None:
            return found
        tried = {
            self._trial_cell(stage.trial(value, 0).point).label: (stage, value)
            for stage in self._search.stages()
            for value in stage.values
        }
        return [*(self._tried(stage, value) for stage, value in tried.values()), *found[1:]]

    def _tried(self, stage: Stage, value: float) -> tuple[Cell, Measured | None]:
        cell, last = self._trial_cell(stage.trial(value, 0).point), self._last(stage, value)
        over = last is not None and (last.cell.status != STOPPED or stage.over(value))
        return cell, last if over else None

    def _last(self, stage: Stage, value: float) -> Measured | None:
        """Return the result of a value after the largest number of steps that was tried."""
        found = [self._trials.get(stage.trial(value, steps)) for steps in stage.rungs]
        return next((measured for measured in reversed(found) if measured is not None), None)

    def left(self) -> list[list[Part]]:
        """Return what is still to be trained, in groups, each of which begins when the one before it has ended.

        Grids may be widened, and runs that depend on a choice may get other values.
        """
        if self._left is None:
            self._left = self._list_left()
        return self._left

    def _list_left(self) -> list[list[Part]]:
        if self.failed:
            return []
        groups: list[list[Part]] = []
        steps, done = self.first.spec.train.steps, 0
        if self._search is not None:
            done = steps  # of the first seed: its run is one of the trials
            before = dict(zip(self._search.rungs, (0, *self._search.rungs), strict=False))
            for trials in self._search.predicted():
                groups.append([Part(self._trial_cell(t.point), before[t.steps], t.steps, trial=True) for t in trials])
        cells = enumerate(self.seed_cells())
        last = [Part(cell, 0 if n else done, steps) for n, cell in cells if cell.seed not in self._measured]
        return [*groups, last]

    def running(self, cell: Cell) -> bool:
        """Return True for a cell whose job runs."""
        return any(job.cell == cell for job in self._running)

    @property
    def first_cell(self) -> tuple[Cell, Measured] | None:
        """The cell of the first seed, when it is done."""
        measured = self._measured.get(self._seeds[0])
        return None if measured is None else (self.seed_cells()[0], measured)

    def add_speeds(self, measured: Measured) -> None:
        """Replace the results of the first cell by those with speeds."""
        self._measured[self._seeds[0]] = measured
        self._cells = None

    def row(self) -> ModelResult | None:
        """Return the row of the model: the means over its cells so far; None before the first one."""
        if self.base is None or self.failed:
            return self.base
        done = [self._measured[seed] for seed in self._seeds if seed in self._measured]
        if not done:
            return None
        first = self._measured.get(self._seeds[0])
        more = {} if first is None else dict(first.more)
        row = dataclasses.replace(self.base, run=self.seed_cells()[0].label, **more)
        row = combine(row, [measured.cell for measured in done])
        alone = {name: more[name] for name in ("train_tokens_per_s",) if name in more and row.status == "ranked"}
        return dataclasses.replace(row, **alone)

    @property
    def done(self) -> bool:
        """True when nothing is left to run."""
        return self.failed or len(self._measured) == len(self._seeds)

    def tuned(self) -> list[dict[str, Any]]:
        """Return for each setting the chosen value and all that were tried, as results.json holds them.

        Empty before all are chosen.
        """
        if self._chosen is None or self._search is None:
            return []
        return [self._stage(stage) for stage in self._search.stages()]

    def _stage(self, stage: Stage) -> dict[str, Any]:
        tried: list[dict[str, Any]] = []
        first = self._measured.get(self._seeds[0])  # of the run that was chosen
        for value in stage.values:
            measured = self._last(stage, value)
            assert measured is not None
            cell = measured.cell
            trial = {name: getattr(cell, name) for name in ("run", "status", "selection_loss")}
            trial["loss"] = first.cell.loss if first is not None and first.cell.run == cell.run else None
            if len(stage.rungs) > 1:
                parts = ((steps, self._trials.get(stage.trial(value, steps))) for steps in stage.rungs)
                trial["parts"] = [[steps, part.cell.selection_loss] for steps, part in parts if part is not None]
            tried.append({"value": value, **trial})
        return {"chosen": stage.chosen, "at_end": stage.at_end, "tried": tried}

    def _job(self, trial: Trial) -> Job:
        return Job("measure", self._trial_cell(trial.point), until=trial.steps)

    def _trial_cell(self, point: Point) -> Cell:
        assert self._search is not None
        spec = with_values(self.first.spec, dict(zip(self._search.settings, point, strict=True)))
        return make_cell(self._folder, spec, self.first.spec, self.first.model)

    def _has_steps(self) -> bool:
        """Return True for a model that is trained by gradients, so that it has a recipe to tune."""
        return self.first.spec.make_model(self._vocab_size, device="meta").traits.trainable
