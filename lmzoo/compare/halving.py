"""Successive halving: the better half of the runs of a search goes on, after parts of the training that double.

With n values, the first part is the share 1 / 2^k of the steps with the smallest k for which 2^k is at least n, so that
about one run is left for the last part. A run is stopped in the middle of its schedule and resumed later, bitwise as if
it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo import humanize
from lmzoo.compare.findings import listed
from lmzoo.compare.results import STOPPED, ModelResult
from lmzoo.compare.tune import FINAL, Grid
from lmzoo.errors import ConfigError
from lmzoo.runs.spec import RunSpec


def refuse_halving(grids: Sequence[Grid]) -> None:
    """Raise `ConfigError` if there is nothing to search, or a setting that shows only at the end of the training."""
    if not grids:
        raise ConfigError("halving=True cannot be given: it needs tune='learning_rate' or another setting to search")
    if any(grid.setting == FINAL for grid in grids):
        raise ConfigError(
            f"halving=True cannot be given: tune names {FINAL}, which shows its worth only at the end of the training"
        )


def shares(grids: Sequence[Grid]) -> list[float]:
    """Return the shares of the training after which losses are compared, the last of which is 1."""
    most = max(len(grid.values) for grid in grids)
    halvings = math.ceil(math.log2(most))
    return [2.0**-n for n in range(halvings, -1, -1)]


def rungs(spec: RunSpec, parts: Sequence[float], *, warmup_tuned: bool) -> list[int]:
    """Return the number of steps of each share.

    Raises `ConfigError` for a training that is too short, or whose own warm-up does not end within the first share.
    """
    steps, warmup = spec.train.steps, spec.train.resolved().warmup_steps
    first = int(steps * parts[0])
    if not first:
        raise ConfigError(f"halving=True needs at least {1 / parts[0]:.0f} steps, and {spec.model} makes {steps}")
    if warmup > first and not warmup_tuned:
        raise ConfigError(
            f"halving=True cannot be given: warmup_steps={warmup} of {spec.model} must be at most {first}, the steps "
            "of the first part"
        )
    return [int(steps * part) for part in parts]


def cost(searches: Sequence[Mapping[str, Any]], models: Sequence[ModelResult]) -> dict[str, int | float]:
    """Return the training tokens of all runs of the searches, and how many more these runs would have needed in full.

    A run that is a part of several searches counts once. A run that diverged is left out, since it saved nothing.
    """
    rows, whole, left = {row.name: row for row in models}, dict[str, int](), dict[str, int]()
    for search in searches:
        for name, found in search["models"].items():
            row = rows[name]
            for trial in found["tried"]:
                if trial["status"] != "diverged":
                    steps = row.steps - trial["parts"][-1][0] if trial["status"] == STOPPED else 0
                    whole[trial["run"]], left[trial["run"]] = row.tokens, round(steps * row.tokens / row.steps)
    tokens, saved = sum(whole.values()), sum(left.values())
    return {"tokens": tokens - saved, "saved_tokens": saved, "saved_share": saved / tokens if tokens else 0.0}


def halving_notes(halving: Mapping[str, Any]) -> list[str]:
    """State what successive halving saved, and what the losses of stopped runs are."""
    *parts, _ = halving["parts"]
    total = halving["tokens"] + halving["saved_tokens"]
    after = listed([f"{100 * part:g} %" for part in parts])
    return [
        f"Successive halving: after {after} of the steps the better half of the runs went on. "
        f"{humanize.count(halving['saved_tokens'])} of {humanize.count(total)} training tokens of the search were not "
        f"spent ({100 * halving['saved_share']:.0f} %). A run is stopped before its learning rate has decayed, so a "
        "value that pays off late may have been dropped."
    ]
