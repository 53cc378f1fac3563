"""Runs a recipe: its cells by the engine of `lmzoo probe`, its text by the one of `lmzoo compare`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from lmzoo.compare.comparison import compare
from lmzoo.compare.results import Results as TextResults
from lmzoo.errors import ConfigError
from lmzoo.hardware import hardware, versions
from lmzoo.probing.results import Results as ProbeResults
from lmzoo.probing.run import run_cells
from lmzoo.probing.workers import choose_device, choose_processes
from lmzoo.reproducing.cells import make_cells
from lmzoo.reproducing.recipe import Recipe, find_recipe
from lmzoo.reproducing.verdicts import FILE, Reproduction, judge, recipe_of, write
from lmzoo.runs.directory import check_directory
from lmzoo.storage import atomic
from lmzoo.train.events import Listener

PROBES, TEXT = "probes", "text"  # folders of the two parts


def reproduce(
    recipe: str | Recipe,
    out: str | Path,
    *,
    workers: int | None = None,
    device: str | None = None,
    listeners: Sequence[Listener] = (),
    keep_freed_memory: bool = False,
) -> Reproduction:
    """Train everything that a recipe names in the directory `out`, and compare its figures with their bands.

    `workers`, `device`, `listeners` and `keep_freed_memory` are those of `probing.run_cells`. `reproduced.json` has
    the verdicts at the end; a second call continues after an interruption.

    Raises an `LmzooError` of one line for bad input, before anything is written; `Interrupted` after a signal.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    folder = Path(out)
    device = choose_device(device)
    cells = make_cells(recipe)
    choose_processes(workers, device, len(cells))
    _require_possible(recipe, folder, device)
    start = Reproduction(
        recipe=recipe.name,
        paper=recipe.paper,
        claim=recipe.claim,
        verdicts=[],
        complete=False,
        hardware=hardware(torch.device(device)),
        versions=versions(),
    )
    atomic.make_folder(folder)
    write(start, folder)
    probed = ProbeResults(levels=[], cells=[])
    if cells:
        probed = run_cells(
            cells,
            folder / PROBES,
            workers=workers,
            device=device,
            listeners=listeners,
            keep_freed_memory=keep_freed_memory,
        )
    compared = _compare(recipe, folder / TEXT, workers, listeners, keep_freed_memory)
    found = dataclasses.replace(start, verdicts=judge(recipe, probed, compared), complete=True)
    write(found, folder)
    return found


def _require_possible(recipe: Recipe, folder: Path, device: str) -> None:
    """Raise `ConfigError` for a directory of something else, or a device that a part cannot have."""
    found = os.path.lexists(folder / FILE)
    check_directory(folder, "reproduction", found=found, leftovers=(PROBES, TEXT))
    if found and recipe_of(folder) != recipe.name:
        raise ConfigError(f"name={recipe.name!r}, but {folder} holds {recipe_of(folder)!r}: give another --out")
    if recipe.text is not None and device == "cpu" and torch.cuda.is_available():
        raise ConfigError(f"device='cpu': {recipe.name} also compares models on a text, which uses the GPU found here")


def _compare(
    recipe: Recipe, out: Path, workers: int | None, listeners: Sequence[Listener], keep_freed_memory: bool
) -> TextResults | None:
    text = recipe.text
    if text is None:
        return None
    return compare(
        text.models,
        text.data,
        out,
        match=text.match,
        budget=text.budget,
        tune=text.tune,
        seeds=text.seeds,
        settings=text.settings,
        workers=workers,
        listeners=listeners,
        keep_freed_memory=keep_freed_memory,
    )
