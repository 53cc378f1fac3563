"""The course of one model through a comparison: its check, the runs that tune a setting, and a run for each seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmzoo.compare.engine import Done, Job
from lmzoo.compare.grid import Cell, Measured, combine, make_cell, with_seed
from lmzoo.compare.results import ModelResult, portable
from lmzoo.compare.tune import Grid, at_end, best_value, next_value, with_value


class Course:
    """Says which jobs of a model can run, and takes their results.

    The values of the grid are independent; the runs of further seeds follow when a value is chosen. Jobs have a turn:
    -1 for the check, else the number of the seed.
    """

    def __init__(self, first: Cell, seeds: Sequence[int], grid: Grid | None, folder: Path, vocab_size: int) -> None:
        self.first, self._seeds, self._grid = first, seeds, grid
        self._folder, self._vocab_size = folder, vocab_size
        self.base: ModelResult | None = None  # without runs
        self._chosen: Cell | None = None
        self._trials: dict[float, Measured] = {}
        self._measured: dict[int, Measured] = {}
        self._begun: list[Job] = []

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
            jobs = [(0, Job("measure", self._trial(value))) for value in self._values()]
        else:
            cells = enumerate(self.seed_cells())
            jobs = [(turn, Job("measure", cell, None if turn else self.base.config)) for turn, cell in cells]
        return [(turn, job) for turn, job in jobs if job not in self._begun]

    def begin(self, job: Job) -> None:
        """Note that a job runs."""
        self._begun.append(job)

    def take(self, done: Done) -> None:
        """Take the result of a job."""
        value, cell = done.value, done.job.cell
        if done.problem:
            self.base = ModelResult(name=self.first.model, status="failed", problem=portable(done.problem))
        elif isinstance(value, ModelResult):
            self.base = value
            if not self.failed and (self._grid is None or not self._has_steps()):
                self._chosen = self.first
        elif isinstance(value, Measured) and self._chosen is None and self._grid is not None:
            self._trials[getattr(cell.spec.train, self._grid.setting)] = value
            if next_value(self._grid, self._losses()) is None:
                self._chosen = self._trial(best_value(self._losses()))
        elif isinstance(value, Measured):
            self._measured[cell.seed] = value

    def seed_cells(self) -> list[Cell]:
        """Return a cell for each seed, with the chosen setting; as long as none is chosen, with that of the preset."""
        chosen = self._chosen or self.first
        found = (with_seed(chosen.spec, seed) for seed in self._seeds)
        return [
            chosen if spec == chosen.spec else make_cell(self._folder, spec, self.first.spec, chosen.model)
            for spec in found
        ]

    def cells(self) -> list[tuple[Cell, Measured | None]]:
        """Return all cells that are known, tuned ones first, and the results of those that are done."""
        if self.failed:
            return []
        cells = self.seed_cells()
        found = [(cell, self._measured.get(cell.seed)) for cell in cells]
        if self._grid is None or self.base is None or (self._chosen is not None and not self._trials):
            return found
        values = sorted({*self._grid.values, *self._trials, *(self._values() if self._chosen is None else ())})
        return [*((self._trial(value), self._trials.get(value)) for value in values), *found[1:]]

    def running(self, cell: Cell) -> bool:
        """Return True for a cell whose job runs, or is done."""
        return any(job.cell == cell and job.kind == "measure" for job in self._begun)

    @property
    def first_cell(self) -> tuple[Cell, Measured] | None:
        """The cell of the first seed, when it is done."""
        measured = self._measured.get(self._seeds[0])
        return None if measured is None else (self.seed_cells()[0], measured)

    def add_speeds(self, measured: Measured) -> None:
        """Replace the results of the first cell by those with speeds."""
        self._measured[self._seeds[0]] = measured

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

    def tuned(self) -> dict[str, Any] | None:
        """Return the chosen value and all that were tried, as results.json holds them; None before one is chosen."""
        if self._chosen is None or not self._trials or self._grid is None:
            return None
        tried = [
            {
                "value": value,
                "run": measured.cell.run,
                "status": measured.cell.status,
                "selection_loss": measured.cell.selection_loss,
                "loss": measured.cell.loss,
            }
            for value, measured in sorted(self._trials.items())
        ]
        losses = self._losses()
        return {"chosen": best_value(losses), "at_end": at_end(losses), "tried": tried}

    def _losses(self) -> dict[float, float]:
        losses = {value: measured.cell.selection_loss for value, measured in self._trials.items()}
        return {value: math.inf if loss is None else loss for value, loss in losses.items()}

    def _values(self) -> list[float]:
        """Return the values to try: all of the grid at once, then one more while the best lies at an end."""
        assert self._grid is not None
        missing = [value for value in self._grid.values if value not in self._trials]
        more = None if missing else next_value(self._grid, self._losses())
        return missing if more is None else [more]

    def _trial(self, value: float) -> Cell:
        assert self._grid is not None
        spec = with_value(self.first.spec, self._grid.setting, value)
        return make_cell(self._folder, spec, self.first.spec, self.first.model)

    def _has_steps(self) -> bool:
        """Return True for a model that is trained by gradients, so that it has a recipe to tune."""
        return self.first.spec.make_model(self._vocab_size, device="meta").traits.trainable
