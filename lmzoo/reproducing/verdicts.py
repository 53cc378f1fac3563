"""Compares the figures of a recipe with their bands, and the file `reproduced.json` that stores the verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmzoo import files
from lmzoo.compare.results import Results as TextResults
from lmzoo.errors import ConfigError
from lmzoo.probing.results import CellResult
from lmzoo.probing.results import Results as ProbeResults
from lmzoo.reproducing.cells import label
from lmzoo.reproducing.recipe import Claim, Recipe
from lmzoo.storage import atomic

SCHEMA = 1
FILE = "reproduced.json"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The figure of a claim. `value` is None if no run gave one; then the band does not hold.

    An accuracy is the best one over learning rates and seeds, a difference of losses the mean over the seeds. `seeds`
    has a figure for each seed: an accuracy at `learning_rate`, the one with the best mean.
    """

    text: str
    model: str
    task: str
    minus: str
    low: float | None
    high: float | None
    value: float | None
    inside: bool
    learning_rate: float | None
    seeds: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """All verdicts of a recipe; `holds` is True if every figure is in its band."""

    recipe: str
    paper: str
    claim: str
    verdicts: Sequence[Verdict]
    complete: bool = True
    hardware: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """True if the recipe is complete and every figure is in its band."""
        return self.complete and all(verdict.inside for verdict in self.verdicts)


def judge(recipe: Recipe, probed: ProbeResults, compared: TextResults | None) -> list[Verdict]:
    """Returns a verdict for each claim of the recipe."""
    return [
        _judge_accuracy(claim, recipe, probed) if claim.task else _judge_difference(claim, compared)
        for claim in recipe.claims
    ]


def _judge_accuracy(claim: Claim, recipe: Recipe, probed: ProbeResults) -> Verdict:
    by_rate: dict[float, list[float]] = {}
    for rate in recipe.learning_rates:
        cells = [cell for cell in probed.cells if _belongs(cell, claim, rate)]
        found = [cell.accuracy_tested for cell in cells if cell.accuracy_tested is not None]
        if found:
            by_rate[rate] = found
    if not by_rate:
        return _verdict(claim, None)
    best = max(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))
    return _verdict(claim, max(map(max, by_rate.values())), best, by_rate[best])


def _belongs(cell: CellResult, claim: Claim, rate: float) -> bool:
    return cell.model == label(claim.model, rate) and cell.difficulty == claim.task


def _judge_difference(claim: Claim, compared: TextResults | None) -> Verdict:
    losses = {
        row.name: {cell.seed: cell.loss for cell in row.cells if cell.loss is not None}
        for row in (compared.models if compared is not None else ())
    }
    ours, others = losses.get(claim.model, {}), losses.get(claim.minus, {})
    differences = [ours[seed] - others[seed] for seed in ours if seed in others]
    if not differences:
        return _verdict(claim, None)
    return _verdict(claim, sum(differences) / len(differences), None, differences)


def _verdict(
    claim: Claim, value: float | None, learning_rate: float | None = None, seeds: Sequence[float] = ()
) -> Verdict:
    low, high = (bound if abs(bound) < float("inf") else None for bound in (claim.low, claim.high))
    return Verdict(
        text=claim.text,
        model=claim.model,
        task=claim.task,
        minus=claim.minus,
        low=low,
        high=high,
        value=value,
        inside=value is not None and claim.low <= value <= claim.high,
        learning_rate=learning_rate,
        seeds=list(seeds),
    )


def to_json(reproduction: Reproduction) -> str:
    """Returns the text of reproduced.json."""
    content = {"schema": SCHEMA, **asdict(reproduction), "holds": reproduction.holds}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(reproduction: Reproduction, folder: Path) -> None:
    """Write `folder/reproduced.json` atomically."""
    atomic.write_file(folder / FILE, to_json(reproduction))


def recipe_of(folder: Path) -> str:
    """Returns the name of the recipe that `folder` was made with. Raises `ConfigError` for a damaged file."""
    path = folder / FILE
    try:
        return str(files.parse_json(files.read_bytes(path, _MAX_BYTES))["recipe"])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {files.reason(error)}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: names no recipe ({error})") from None
