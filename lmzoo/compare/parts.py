"""Runs of a search: a cell is trained up to a step, evaluated on the half that chooses, and stopped.

With successive halving there are several such parts of a run, else one with all steps. The run of the value that is
chosen is completed later: it is evaluated on the half that is reported.

The losses are kept in the file `parts.json` of the run, since later checkpoints replace the checkpoints of the parts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from lmzoo import files
from lmzoo.compare.forecast import steps_done
from lmzoo.compare.grid import Cell, Measured, diverged, load_cell, own_interrupts
from lmzoo.compare.results import STOPPED, CellResult
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError, DivergedError
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.run import train_part
from lmzoo.storage import atomic
from lmzoo.train.carried import ContextUse, evaluate_text
from lmzoo.train.events import Listener

PARTS_FILE = "parts.json"
_MAX_BYTES = 1 << 20
_KEPT = ("status", "problem", "selection_loss")


def read_part(cell: Cell, until: int, key: str) -> Measured | None:
    """Return the result of the part of a cell up to the step `until`, if it was kept under `key`."""
    found = _kept(cell, key).get(str(until))
    try:
        return None if found is None else Measured(CellResult(seed=cell.seed, run=cell.label, **found))
    except TypeError:
        return None


def refuse_later(cell: Cell, until: int, key: str) -> None:
    """Raise `ConfigError` for a run that is past the step `until`, and has no result of that part."""
    step = steps_done(cell)
    if step > until and read_part(cell, until, key) is None:
        raise ConfigError(
            f"halving=True cannot be given: the run in {cell.run} is at step {step}, and its loss at step {until} was "
            "not kept: compare in another directory"
        )


def measure_part(
    cell: Cell,
    until: int,
    key: str,
    data: PreparedData,
    split: TokenSplit,
    *,
    stride: int | None,
    context: ContextUse,
    listeners: Sequence[Listener],
    keep_freed_memory: bool,
) -> Measured:
    """Train a part of a cell and evaluate it on `split`, and keep the result under `key`.

    The run goes on from an earlier part. The result has no loss but `selection_loss`; it has the status "stopped", or
    "trained" after the last step.
    """
    refuse_later(cell, until, key)
    try:
        with own_interrupts(cell):
            given: dict[str, Any] = {"prepared": data, "keep_freed_memory": keep_freed_memory}
            train_part(cell.spec, cell.run, until, listeners=listeners, **given)
        model, tables = load_cell(cell)
        precision = tables["machine"]["precision"]
        loss = evaluate_text(model, split, context=context, stride=stride, precision=precision).loss
        if not math.isfinite(loss):
            raise DivergedError(f"step {until}: the validation loss is {loss}")
        status: Any = STOPPED if until < cell.spec.train.steps else "trained"
        result = CellResult(seed=cell.seed, run=cell.label, status=status, selection_loss=loss)
    except DivergedError as error:
        result = diverged(cell, error)
    parts = _kept(cell, key) | {str(until): {name: getattr(result, name) for name in _KEPT}}
    atomic.write_file(cell.run / PARTS_FILE, json.dumps({"key": key, "parts": parts}, allow_nan=False) + "\n")
    return Measured(result)


def _kept(cell: Cell, key: str) -> dict[str, Any]:
    """Return the fields of the results that were kept under `key`, by step."""
    try:
        found = files.parse_json(files.read_bytes(cell.run / PARTS_FILE, _MAX_BYTES))
        return dict(found["parts"]) if found["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
