"""Runs all cells, one after the other; a finished cell is kept in `probes.json` and never run again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmzoo import humanize, plugins, registry
from lmzoo.conformance import ranking_problem
from lmzoo.errors import ConfigError
from lmzoo.hardware import default_device, hardware, versions
from lmzoo.probing.cell import train_cell
from lmzoo.probing.plan import Cell, make_cells
from lmzoo.probing.results import FILE, CellResult, Results, describe, read_results, write_results
from lmzoo.runs.directory import check_directory
from lmzoo.runs.lock import locked
from lmzoo.storage import atomic
from lmzoo.train.events import EndEvent, Listener, NoteEvent, fan_out

UNFINISHED = "unfinished"  # folder of the checkpoints of cells that were interrupted


def probe_models(
    models: Sequence[str],
    probes: str,
    out: str | Path,
    *,
    difficulty: str = "easy",
    steps: int | None = None,
    seeds: int = 1,
    settings: Mapping[str, Any] | None = None,
    listeners: Sequence[Listener] = (),
    keep_freed_memory: bool = False,
) -> Results:
    """Train each model on each probe from new weights, and measure the share of right answers, in the directory `out`.

    `probes` ("mqar,parity") and `difficulty` ("easy,hard") are names with commas between them, or "all"; `settings` are
    overrides as in `lmzoo compare --set`; `keep_freed_memory` as in `train_run`. Each model is checked first: one that
    fails is not trained. `probes.json` is written after each cell; a second call continues, and may add models, probes
    and seeds. Returns all results of the directory.

    Raises an `LmzooError` of one line for bad input, before anything is written; `Interrupted` after a signal.
    """
    folder, emit = Path(out), fan_out(listeners)
    cells = make_cells(models, probes, difficulty, steps=steps, seeds=seeds, settings=settings or {})
    found = (folder / FILE).exists()
    check_directory(folder, "probe results", found=found, leftovers=(UNFINISHED,))
    before = read_results(folder) if found else Results(levels=[], cells=[])
    done = {cell.key: cell for cell in before.cells if cell.status != "failed"}
    for cell in cells:
        _require_same(folder, cell, done.get(cell.key))
    left = [cell for cell in cells if cell.key not in done]
    if not left:
        return before
    with locked(folder):
        levels = {(level.probe, level.difficulty): level for level in before.levels}
        levels |= {(cell.probe.name, cell.difficulty): describe(cell.probe, cell.difficulty) for cell in cells}
        results = dataclasses.replace(
            before,
            levels=list(levels.values()),
            cells=list(done.values()),
            hardware=hardware(default_device()),
            versions=versions(),
        )
        emit(NoteEvent(f"{len(cells)} cells, of which {len(cells) - len(left)} are done"))
        return _run_all(results, left, folder, emit, keep_freed_memory)


def _require_same(folder: Path, cell: Cell, kept: CellResult | None) -> None:
    """Raise `ConfigError` if the directory holds the cell with other settings."""
    if kept is None:
        return
    now = cell.settings
    for table, values in now.items():
        before = kept.settings.get(table)
        if values == before:
            continue
        name, old, new = table, before, values
        if isinstance(values, dict) and isinstance(before, dict):
            name = next(key for key in {**values, **before} if values.get(key) != before.get(key))
            old, new = before.get(name), values.get(name)
        raise ConfigError(
            f"{name}={new!r}, but {folder / FILE} holds {cell.title} with {old!r}: probe in another directory"
        )


def _run_all(results: Results, left: Sequence[Cell], folder: Path, emit: Listener, keep_freed_memory: bool) -> Results:
    problems: dict[str, str] = {}
    tokens, seconds = 0, 0.0  # of the training so far
    for number, cell in enumerate(left):
        if cell.model not in problems:
            emit(NoteEvent(f"{cell.model}: checking"))
            problems[cell.model] = ranking_problem(cell.model)
        run = folder / UNFINISHED / cell.settings_hash
        if problems[cell.model]:
            result = _failed(cell, problems[cell.model])
        else:
            remaining = sum(other.tokens for other in left[number:] if not problems.get(other.model))
            time_left = f", about {humanize.duration(seconds / tokens * remaining)} left" if tokens else ""
            emit(NoteEvent(f"cell {number + 1} of {len(left)}{time_left}"))
            began = time.monotonic()
            try:
                result = train_cell(cell, run, emit, keep_freed_memory=keep_freed_memory)
            except (Exception, SystemExit) as error:  # one model of a plug-in must not abandon the others
                problem = plugins.blame(error, registry.registered_classes())
                if problem is None:
                    raise
                result = _failed(cell, problem)
            finally:
                emit(EndEvent())
            tokens, seconds = tokens + cell.tokens, seconds + time.monotonic() - began
        if result.problem:
            emit(NoteEvent(f"{cell.title} {result.status}: {result.problem}"))
        else:
            emit(NoteEvent(f"{cell.title}: {_accuracies(cell, result)}"))
        results = dataclasses.replace(results, cells=[*results.cells, result])
        write_results(results, folder)
        if run.exists():
            atomic.remove_folder(run)
    if (folder / UNFINISHED).is_dir() and not any((folder / UNFINISHED).iterdir()):
        (folder / UNFINISHED).rmdir()
    return results


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
