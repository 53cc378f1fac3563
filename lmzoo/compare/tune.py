"""The search of a training setting with equal effort for each model: `--tune learning_rate`.

Every model is trained with the same values and the first seed. While the best value of a model lies at an end of its
grid, the grid is widened there by one value, at most `MOST_ADDED` times at each end. The value is chosen on one half of
the held-out documents, and every figure of the comparison is of the other half: the lowest of several losses is too low
an estimate on the documents that chose it. A run that diverged is infinitely bad.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmzoo import configs, humanize
from lmzoo.compare.results import Results
from lmzoo.errors import ConfigError
from lmzoo.matching import parse_number
from lmzoo.runs.spec import RunSpec

SETTINGS = ("learning_rate",)
DEFAULT_VALUES = (0.0025, 0.005, 0.01)
DIVERGED = "diverged"
TUNED = "Loss on the half of the validation split that chooses, with the first seed; bold: chosen."
MOST_ADDED = 2  # values that are added at each end of the grid


@dataclass(frozen=True)
class Grid:
    """The values of a setting that every model is trained with, in increasing order."""

    setting: str
    values: tuple[float, ...]


def parse_tune(text: str) -> Grid:
    """Parse "learning_rate" or "learning_rate=0.001,0.002,0.004". Raises `ConfigError`."""
    setting, equals, listed = text.partition("=") if isinstance(text, str) else ("", "", "")
    if setting not in SETTINGS:
        raise ConfigError(f"tune={text!r}: {setting!r} cannot be tuned{configs.suggest(setting, SETTINGS)}")
    if not equals:
        return Grid(setting, DEFAULT_VALUES)
    values = sorted({parse_number(f"tune={text!r}", number.strip()) for number in listed.split(",")})
    if len(values) < 2:
        raise ConfigError(f"tune={text!r} needs two different values at least, as in 'learning_rate=0.001,0.003'")
    return Grid(setting, tuple(values))


def next_value(grid: Grid, losses: Mapping[float, float]) -> float | None:
    """Return the next value to try; None if the best one has worse neighbors, or the grid is as wide as it may be."""
    for value in grid.values:
        if value not in losses:
            return value
    best, tried = best_value(losses), sorted(losses)
    below, above = (sum(value < grid.values[0] for value in tried), sum(value > grid.values[-1] for value in tried))
    if best == tried[0] and below < MOST_ADDED:
        return _rounded(tried[0] * grid.values[0] / grid.values[1])
    if best == tried[-1] and above < MOST_ADDED:
        return _rounded(tried[-1] * grid.values[-1] / grid.values[-2])
    return None


def best_value(losses: Mapping[float, float]) -> float:
    """Return the value with the lowest loss; of equal ones (all diverged), the lowest value."""
    return min(losses, key=lambda value: (losses[value], value))


def at_end(losses: Mapping[float, float]) -> bool:
    """Return True if the best value lies at an end of what was tried, so that a better one may lie beyond it."""
    return best_value(losses) in (min(losses), max(losses))


def with_value(spec: RunSpec, setting: str, value: float) -> RunSpec:
    """Return `spec` with a value of the setting. A final learning rate that was given keeps its share of the peak."""
    changes: dict[str, Any] = {setting: value}
    low, high = spec.train.min_learning_rate, spec.train.learning_rate
    if low is not None:
        changes["min_learning_rate"] = _rounded(low * value / high)
    return dataclasses.replace(spec, train=dataclasses.replace(spec.train, **changes))


def refuse_settings(grid: Grid, settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the setting that is tuned is also given."""
    for key, value in settings.items():
        if key.rpartition(".")[2] == grid.setting:
            raise ConfigError(f"{key}={value!r} cannot be given: {grid.setting} is tuned")


def tune_notes(results: Results) -> list[str]:
    """State how the setting was chosen, and for which models the best value may lie beyond the grid."""
    if not results.tuning:
        return []
    tuning = results.tuning
    setting, select, report = tuning["setting"].replace("_", " "), tuning["selection"], tuning["report"]
    found = [
        f"The {setting} of each model was chosen with equal effort: {len(tuning['values'])} values for all, and up to "
        f"{tuning['most_added']} more at each end while the best value lay there, with the first seed, by the loss on "
        f"{select['tokens']:,} tokens of the validation split ({_documents(select)}). All losses and "
        f"n-grams are of the other {report['tokens']:,} tokens ({_documents(report)}); curves are of both."
    ]
    ends = [name for name, model in tuning["models"].items() if model["at_end"]]
    if ends:
        found.append(
            f"The best {setting} lies at an end of what was tried, so a better one may lie beyond: {', '.join(ends)}."
        )
    return found


def tuned_table(results: Results) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Return the headings (the values) and a row for each model: pairs of a cell and whether it is the chosen one."""
    models = results.tuning["models"]
    values = sorted({trial["value"] for model in models.values() for trial in model["tried"]})
    rows = []
    for name, model in models.items():
        losses = {trial["value"]: trial["selection_loss"] for trial in model["tried"]}
        cells = [
            (
                "" if value not in losses else DIVERGED if losses[value] is None else humanize.loss(losses[value]),
                value == model["chosen"],
            )
            for value in values
        ]
        rows.append([(name, False), *cells])
    return [results.tuning["setting"].replace("_", " "), *(f"{value:g}" for value in values)], rows


def _documents(half: Mapping[str, Any]) -> str:
    """Return the number of documents; a text of one document is cut in the middle."""
    return f"{half['documents']:,} documents" if half["documents"] > 1 else "one document, or a half of it"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if value and math.isfinite(value) else value
