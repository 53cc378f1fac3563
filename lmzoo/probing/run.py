"""Runs all cells of a directory; a finished cell is kept in `probes.json` and never run again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lmzoo import humanize
from lmzoo.compare.workers import limited_threads
from lmzoo.distributed.ranks import refuse_ranks
from lmzoo.errors import ConfigError
from lmzoo.hardware import hardware, versions
from lmzoo.probing.plan import Cell, make_cells
from lmzoo.probing.results import FILE, CellResult, Results, describe, read_results, write_results
from lmzoo.probing.schedule import UNFINISHED, Schedule
from lmzoo.probing.workers import choose_device, choose_processes, make_engine
from lmzoo.runs.directory import check_directory
from lmzoo.runs.lock import locked
from lmzoo.train.events import Listener, NoteEvent, fan_out


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
    workers: int | None = 1,
    device: str | None = None,
) -> Results:
    """Train each model on each probe from new weights, and measure the share of right answers, in the directory `out`.

    `probes` ("mqar,parity") and `difficulty` ("easy,hard") are names with commas between them, or "all"; `settings` are
    overrides as in `lmzoo compare --set`. The rest, and what is returned, is that of `run_cells`. A second call may add
    models, probes and seeds.
    """
    cells = make_cells(models, probes, difficulty, steps=steps, seeds=seeds, settings=settings or {})
    return run_cells(
        cells,
        out,
        listeners=listeners,
        keep_freed_memory=keep_freed_memory,
        workers=workers,
        device=device,
    )


def run_cells(
    cells: Sequence[Cell],
    out: str | Path,
    *,
    listeners: Sequence[Listener] = (),
    keep_freed_memory: bool = False,
    workers: int | None = 1,
    device: str | None = None,
) -> Results:
    """Train and test the cells that the directory `out` does not hold yet.

    Each model is checked first: one that fails is not trained. `probes.json` is written after each cell; a second call
    continues. `workers` cells are trained at once (None: see `choose_processes`): with one, in this process, and
    `listeners` hear all its events; with several, in other processes, and they hear notes and states. `device` is "cpu"
    or "cuda" (None: a GPU if there is one); `keep_freed_memory` as in `train_run`. Returns all results of `out`.

    Raises an `LmzooError` of one line for bad input, before anything is written; `Interrupted` after a signal.
    """
    folder, emit = Path(out), fan_out(listeners)
    refuse_ranks("each model is trained in one process, and --workers N trains N at once")
    device = choose_device(device)
    before = kept_results(cells, folder)
    done = {cell.key: cell for cell in before.cells if cell.status != "failed"}
    left = [cell for cell in cells if cell.key not in done]
    at_once = choose_processes(workers, device, len(left))
    if not left:
        return before
    with locked(folder), limited_threads(at_once) as threads:
        if kept_results(cells, folder) != before:
            raise ConfigError(f"out={folder} was changed by another process: the same command continues")
        levels = {(level.probe, level.difficulty): level for level in before.levels}
        levels |= {(cell.probe.name, cell.difficulty): describe(cell.probe, cell.difficulty) for cell in cells}
        results = dataclasses.replace(
            before,
            levels=list(levels.values()),
            cells=list(done.values()),
            hardware=hardware(torch.device(device)),
            versions=versions(),
        )
        kept = len(cells) - len(left)
        emit(NoteEvent(f"{humanize.number(len(cells), 'cell')}, of which {kept} {'is' if kept == 1 else 'are'} done"))
        engine = make_engine(device, at_once, threads, emit, keep_freed_memory=keep_freed_memory)
        order = {cell.key: number for number, cell in enumerate(cells)}

        def ordered(now: Results) -> Results:
            """Return the results with the cells of this call in its order, as if it had never been interrupted."""
            return dataclasses.replace(now, cells=sorted(now.cells, key=lambda cell: order.get(cell.key, -1)))

        def write(now: Results) -> None:
            write_results(ordered(now), folder)

        return ordered(Schedule(results, left, folder, engine, emit, write).run())


def kept_results(cells: Sequence[Cell], folder: Path, *, but: Container[str] = ()) -> Results:
    """Read the results that the directory `folder` holds, empty for a new one.

    Raises an `LmzooError` of one line for a directory of something else, or one that holds one of the cells with other
    settings; those named in `but` may differ.
    """
    found = os.path.lexists(folder / FILE)
    check_directory(folder, "probe results", found=found, leftovers=(UNFINISHED,))
    before = read_results(folder) if found else Results(levels=[], cells=[])
    done = {cell.key: cell for cell in before.cells if cell.status != "failed"}
    for cell in cells:
        _require_same(folder, cell, done.get(cell.key), but)
    return before


def _require_same(folder: Path, cell: Cell, kept: CellResult | None, but: Container[str]) -> None:
    """Raise `ConfigError` if the directory holds the cell with other settings, except for those named in `but`."""
    if kept is None:
        return
    now = cell.settings
    for table, values in now.items():
        before = kept.settings.get(table)
        if values == before:
            continue
        name, old, new = table, before, values
        if isinstance(values, dict) and isinstance(before, dict):
            changed = [key for key in {**values, **before} if values.get(key) != before.get(key) and key not in but]
            if not changed:
                continue
            name = changed[0]
            old, new = before.get(name), values.get(name)
        raise ConfigError(
            f"{name}={new!r}, but {folder / FILE} holds {cell.title} with {old!r}: probe in another directory"
        )
