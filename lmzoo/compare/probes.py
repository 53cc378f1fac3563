"""Probes in a comparison: `--probes mqar,parity` trains the compared models on small tasks too (docs/probes.md).

Each model has the widths, the settings and the recipe that it has on the text, with what `--tune` has chosen; the
numbers of steps, batch sizes and lengths are the same as in `lmzoo probe`. The folder `probes` of the comparison is a
directory of `lmzoo probe`, and results.json has its figures. The package `probing` imports this one, so it is imported
where it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmzoo.compare.results import Results, portable
from lmzoo.compare.tune import SETTINGS
from lmzoo.errors import ConfigError
from lmzoo.runs.spec import ANY_VOCAB_SIZE, RunSpec
from lmzoo.train.events import Listener

if TYPE_CHECKING:
    from lmzoo.data.probes import Probe
    from lmzoo.probing.plan import Cell
    from lmzoo.probing.results import Results as ProbeResults

FOLDER = "probes"
_MOST_STEPS = 10**9
_LONG = ("curve", "settings")  # of a cell: they are in probes.json alone


@dataclass(frozen=True)
class ProbePlan:
    """The levels of probes that all models are trained on, and the number of steps."""

    levels: Sequence[tuple[Probe, str]]
    steps: int

    def cells(self, specs: Mapping[str, RunSpec], seeds: int) -> list[Cell]:
        """Return a cell for each model, level and seed; `specs` are of the first seed, by the names of the rows.

        A model that is not trained by gradients has none. Raises `ConfigError` if no model is.
        """
        from lmzoo.probing.plan import of_spec, with_seeds

        trained = {name: spec for name, spec in specs.items() if _has_steps(spec)}
        if not trained:
            raise ConfigError("probes cannot be given: no model of the comparison is trained by gradients")
        firsts = [
            of_spec(name, spec, probe, difficulty, self.steps)
            for probe, difficulty in self.levels
            for name, spec in trained.items()
        ]
        return with_seeds(firsts, seeds)


def plan_probes(probes: str | None, difficulty: str | None, steps: int | None) -> ProbePlan | None:
    """Return the plan of the options, None without `probes`. Raises `ConfigError`."""
    from lmzoo.probing.plan import STEPS, parse_levels

    if probes is None:
        for name, value in (("difficulty", difficulty), ("probe_steps", steps)):
            if value is not None:
                raise ConfigError(f"{name}={value!r} cannot be given: it needs probes='mqar' or others")
        return None
    for name, text in (("probes", probes), ("difficulty", difficulty)):
        if not isinstance(text, str | None):
            raise ConfigError(f"{name}={text!r} must be names with commas between them, or 'all'")
    if steps is not None and (type(steps) is not int or not 1 <= steps <= _MOST_STEPS):
        raise ConfigError(f"probe_steps={steps!r} must be an integer in [1, {_MOST_STEPS}]")
    return ProbePlan(parse_levels(probes, difficulty or "easy"), steps or STEPS)


class Probing:
    """The probes of the comparison in `folder`: `kept` are the results that it holds already.

    `specs` are of the first seed, by the names of the rows. Raises an `LmzooError` if the folder holds results that
    were made with other settings, except for settings that `--tune` is still to choose.
    """

    def __init__(self, plan: ProbePlan, specs: Mapping[str, RunSpec], seeds: int, folder: Path) -> None:
        from lmzoo.probing.run import kept_results

        self._plan, self._specs, self._seeds, self._folder = plan, specs, seeds, folder / FOLDER
        self._cells = plan.cells(specs, seeds)
        self.kept = kept_results(self._cells, self._folder, but=SETTINGS)
        done = {cell.key for cell in self.kept.cells}
        self._missing = [cell for cell in self._cells if cell.key not in done]

    @property
    def steps_left(self) -> dict[str, float]:
        """For each model, its missing cells as a number of its steps on the text, by the tokens that they read."""
        found: dict[str, float] = {}
        for cell in self._missing:
            spec = self._specs[cell.model]
            length = spec.model_config(ANY_VOCAB_SIZE).context_length
            tokens = spec.train.batch_size * spec.train.grad_accumulation * length
            found[cell.model] = found.get(cell.model, 0.0) + cell.tokens / tokens
        return found

    def marked(self, results: Results) -> Results:
        """Return the results as not complete if cells are missing."""
        return dataclasses.replace(results, complete=results.complete and not self._missing)

    def run(
        self,
        results: Results,
        specs: Mapping[str, RunSpec],
        *,
        workers: int | None,
        listeners: Sequence[Listener],
        keep_freed_memory: bool,
    ) -> Results:
        """Train and test the models that passed their checks, with `specs`, as `probing.run_cells`; add the results."""
        from lmzoo.probing.run import run_cells

        cells = self._plan.cells(specs, self._seeds) if any(map(_has_steps, specs.values())) else []
        if not cells:
            return results
        given: dict[str, Any] = {"listeners": listeners, "keep_freed_memory": keep_freed_memory, "workers": workers}
        return self.add(results, run_cells(cells, self._folder, **given))

    def add(self, results: Results, found: ProbeResults) -> Results:
        """Return the results of the comparison with the `found` results of its cells."""
        keys, levels = {cell.key for cell in self._cells}, {(cell.probe.name, cell.difficulty) for cell in self._cells}
        probes = {
            "steps": self._plan.steps,
            "batch_size": self._cells[0].spec.train.batch_size,
            "levels": [asdict(level) for level in found.levels if (level.probe, level.difficulty) in levels],
            "cells": [_short(asdict(cell)) for cell in found.cells if cell.key in keys],
        }
        return dataclasses.replace(results, probes=probes)


def _short(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell without what only probes.json holds."""
    kept = {key: value for key, value in cell.items() if key not in _LONG}
    return {**kept, "problem": portable(cell["problem"])}


def _has_steps(spec: RunSpec) -> bool:
    return spec.make_model(ANY_VOCAB_SIZE, device="meta").traits.trainable
