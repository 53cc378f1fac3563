"""The settings that are searched with equal effort for each model, and the values that are tried: `--tune`.

Every model is trained with the same values and the first seed. While the best value of a model lies at an end of its
grid, the grid is widened there by one value, at most `MOST_ADDED` times at each end, and never beyond the limits of the
setting. Several settings are searched in the order of `SETTINGS`, see `search`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmzoo import configs
from lmzoo.errors import ConfigError
from lmzoo.matching import parse_number
from lmzoo.runs.spec import RunSpec

RATE, WARMUP, FINAL = "learning_rate", "warmup_steps", "min_learning_rate"  # FINAL: a share of the learning rate
SETTINGS = (RATE, WARMUP, FINAL)
DEFAULT_VALUES = {RATE: (0.0025, 0.005, 0.01), FINAL: (0.0, 0.1, 0.3)}
DEFAULT_WARMUP = (0.025, 0.05, 0.1)  # shares of the steps of the model that makes the fewest
EXAMPLES = {RATE: "0.001,0.003", WARMUP: "50,200", FINAL: "0%,10%"}
MOST_ADDED = 2  # values that are added at each end of the grid


@dataclass(frozen=True)
class Grid:
    """The values of a setting that every model is trained with, in increasing order, and the limits of any value.

    `values` are empty if the default ones depend on the number of steps, until `complete` is called.
    """

    setting: str
    values: tuple[float, ...]
    limits: tuple[float, float] = (0.0, math.inf)

    @property
    def middle(self) -> float:
        """The value with which other settings are searched before this one; of an even number, the lower one."""
        return self.values[(len(self.values) - 1) // 2]


def parse_tune(tune: str | Sequence[str]) -> list[Grid]:
    """Parse "learning_rate", "learning_rate,warmup_steps", "warmup_steps=50,100,200", or several such texts.

    Returns a grid for each setting, in the order of `SETTINGS`. Raises `ConfigError`.
    """
    texts = list(tune) if isinstance(tune, (list, tuple)) else [tune]
    grids = [grid for text in texts for grid in _parse(text)]
    for setting in SETTINGS:
        if sum(grid.setting == setting for grid in grids) > 1:
            raise ConfigError(f"tune={tune!r}: {setting} is named twice")
    return sorted(grids, key=lambda grid: SETTINGS.index(grid.setting))


def _parse(text: object) -> list[Grid]:
    """Parse one text: names of settings, or one setting with its values."""
    names, equals, listed = text.partition("=") if isinstance(text, str) else ("", "", "")
    settings = [names] if equals else [name.strip() for name in names.split(",")]
    for setting in settings:
        if setting not in SETTINGS:
            raise ConfigError(f"tune={text!r}: {setting!r} cannot be tuned{configs.suggest(setting, SETTINGS)}")
    if not equals:
        return [_grid(setting, DEFAULT_VALUES.get(setting, ())) for setting in settings]
    values = sorted({_value(names, f"tune={text!r}", number.strip()) for number in listed.split(",")})
    if len(values) < 2:
        example = f"{names}={EXAMPLES[names]}"
        raise ConfigError(f"tune={text!r} needs two different values at least, as in {example!r}")
    return [_grid(names, tuple(values))]


def _grid(setting: str, values: tuple[float, ...]) -> Grid:
    return Grid(setting, values, (0.0, 1.0)) if setting == FINAL else Grid(setting, values)


def _value(setting: str, where: str, text: str) -> float:
    if setting == FINAL:
        found = re.fullmatch(r"(\d+(?:\.\d*)?)%", text)
        if found is None or float(found[1]) > 100:
            raise ConfigError(f"{where}: {text!r} must be a share of the learning rate from 0% to 100%, as in 10%")
        return float(found[1]) / 100
    if setting == WARMUP:
        value = 0.0 if text == "0" else parse_number(where, text)
        if value % 1:
            raise ConfigError(f"{where}: {text!r} must be a whole number of steps")
        return value
    return parse_number(where, text)


def complete(grids: Sequence[Grid], steps: int) -> list[Grid]:
    """Return the grids with default values for the warm-up; `steps` is the smallest number of steps of all models.

    Raises `ConfigError` if they are too few.
    """
    values = tuple(sorted({float(max(1, round(share * steps))) for share in DEFAULT_WARMUP}))
    if len(values) < 2 and any(not grid.values for grid in grids):
        raise ConfigError(f"tune='{WARMUP}': {steps} steps are too few for the default values: give others")
    return [grid if grid.values else dataclasses.replace(grid, values=values) for grid in grids]


def with_most_warmup(grids: Sequence[Grid], steps: int) -> list[Grid]:
    """Return the grids for a model whose warm-up must end in the first `steps`. Raises `ConfigError`."""
    for grid in grids:
        if grid.setting == WARMUP and grid.values[-1] > steps:
            raise ConfigError(
                f"tune: {WARMUP}={grid.values[-1]:g} must be at most {steps}: the warm-up ends within the steps of "
                "each model, with halving within its first part"
            )
    return [dataclasses.replace(grid, limits=(0.0, steps)) if grid.setting == WARMUP else grid for grid in grids]


def next_value(grid: Grid, losses: Mapping[float, float], most_added: int = MOST_ADDED) -> float | None:
    """Return the next value to try; None if the best one has worse neighbors, or the grid is as wide as it may be."""
    for value in grid.values:
        if value not in losses:
            return value
    best, tried = best_value(losses), sorted(losses)
    below, above = (sum(value < grid.values[0] for value in tried), sum(value > grid.values[-1] for value in tried))
    more = None
    if best == tried[0] and below < most_added:
        more = _beyond(grid, tried[0], grid.values[0] / grid.values[1])
    elif best == tried[-1] and above < most_added:
        more = _beyond(grid, tried[-1], grid.values[-1] / grid.values[-2] if grid.values[-2] else 2.0)
    return None if more in losses else more


def _beyond(grid: Grid, value: float, factor: float) -> float:
    """Return the value `factor` times as large, within the limits: at a limit, the value itself."""
    low, high = grid.limits
    further = value * factor
    if grid.setting == WARMUP:
        further = float(math.ceil(further) if factor > 1 else math.floor(further))
    return min(max(_rounded(further), low), high)


def best_value(losses: Mapping[float, float]) -> float:
    """Return the value with the lowest loss; of equal ones (all diverged), the lowest value."""
    return min(losses, key=lambda value: (losses[value], value))


def at_end(grid: Grid, losses: Mapping[float, float]) -> bool:
    """Return True if the best value lies at an end of what was tried, and a better one may lie beyond it."""
    best = best_value(losses)
    return best in (min(losses), max(losses)) and best not in grid.limits


def with_values(spec: RunSpec, values: Mapping[str, float]) -> RunSpec:
    """Return `spec` with these values. A final learning rate that was given keeps its share of the highest one."""
    train = spec.train
    rate = values.get(RATE, train.learning_rate)
    changes: dict[str, Any] = {RATE: rate}
    if WARMUP in values:
        changes[WARMUP] = int(values[WARMUP])
    if FINAL in values:
        changes[FINAL] = min(rate, _rounded(values[FINAL] * rate))
    elif train.min_learning_rate is not None:
        changes[FINAL] = min(rate, _rounded(train.min_learning_rate * rate / train.learning_rate))
    return dataclasses.replace(spec, train=dataclasses.replace(train, **changes))


def refuse_settings(grids: Sequence[Grid], settings: Mapping[str, Any], specs: Sequence[RunSpec]) -> None:
    """Raise `ConfigError` if a setting that is tuned is also given, or has no effect on one of the models."""
    for grid in grids:
        for key, value in settings.items():
            if key.rpartition(".")[2] == grid.setting:
                raise ConfigError(f"{key}={value!r} cannot be given: {grid.setting} is tuned")
        for spec in specs:
            if grid.setting == FINAL and spec.train.schedule == "constant":
                raise ConfigError(f"tune='{FINAL}': {spec.model} has schedule='constant', which has no final rate")


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if value and math.isfinite(value) else value
