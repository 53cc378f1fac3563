"""The results of probes as plain values, and the file `probes.json` that stores them (docs/probes.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmzoo import arguments, configs, files
from lmzoo.data.probes import Level, Probe
from lmzoo.errors import ConfigError
from lmzoo.storage import atomic

SCHEMA = 1
FILE = "probes.json"
_MAX_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class LevelFacts:
    """A level of a probe, and the accuracies that it is judged by, at the trained and at the tested length."""

    probe: str
    difficulty: str
    skill: str
    paper: str
    vocab_size: int
    trained_length: int
    tested_length: int
    chance_trained: float
    chance_tested: float
    solved_trained: float
    solved_tested: float


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one model on one level of a probe with one seed.

    Accuracies are shares of the questions; None if the model diverged or failed a check, as `problem` says. `parts` are
    accuracies at the tested length with a fixed part of the difficulty. `curve` holds [steps, accuracy at the trained
    length] during training, `seconds` is the time of the training steps, and `settings` is everything that decides the
    result.
    """

    model: str
    probe: str
    difficulty: str
    seed: int
    status: Literal["trained", "diverged", "failed"] = "trained"
    problem: str = ""
    accuracy_trained: float | None = None
    accuracy_tested: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    params: int = 0
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The place of the cell in the results."""
        return self.model, self.probe, self.difficulty, self.seed


@dataclass(frozen=True, kw_only=True)
class Results:
    """All cells of a directory that are finished, and the levels that they belong to."""

    levels: Sequence[LevelFacts]
    cells: Sequence[CellResult]
    hardware: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<probes: {len(self.models)} models on {len(self.levels)} levels, {len(self.cells)} cells>"

    @property
    def models(self) -> list[str]:
        """The models in the order in which they were first probed."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    def of(self, model: str, level: LevelFacts) -> list[CellResult]:
        """Returns the cells of a model on a level, one for each seed."""
        key = (model, level.probe, level.difficulty)
        return [cell for cell in self.cells if (cell.model, cell.probe, cell.difficulty) == key]


def describe(probe: Probe, difficulty: str) -> LevelFacts:
    """Returns what is known of a level before any training."""
    level: Level = probe.levels[difficulty]
    task = level.task
    return LevelFacts(
        probe=probe.name,
        difficulty=difficulty,
        skill=probe.skill,
        paper=probe.paper,
        vocab_size=task.vocab_size,
        trained_length=level.trained,
        tested_length=level.tested,
        chance_trained=task.chance(level.trained),
        chance_tested=task.chance(level.tested),
        solved_trained=task.solved(level.trained),
        solved_tested=task.solved(level.tested),
    )


def to_json(results: Results) -> str:
    """Returns the text of probes.json."""
    return json.dumps({"schema": SCHEMA, **asdict(results)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_results(results: Results, folder: Path) -> None:
    """Write `folder/probes.json` atomically."""
    atomic.write_file(folder / FILE, to_json(results))


def build(tables: Mapping[str, Any], where: str) -> Results:
    """Make results from the tables of a JSON file; raises `ConfigError`, `KeyError` or `TypeError` for wrong ones."""
    levels = [configs.build(LevelFacts, level, where=where) for level in tables["levels"]]
    cells = [_with_whole_steps(configs.build(CellResult, cell, where=where)) for cell in tables["cells"]]
    return Results(levels=levels, cells=cells, hardware=tables.get("hardware", {}), versions=tables.get("versions", {}))


def _with_whole_steps(cell: CellResult) -> CellResult:
    """Return a cell whose curve has steps without a decimal point, as they were written."""
    return replace(cell, curve=[[*map(int, point[:1]), *point[1:]] for point in cell.curve])


def read_results(folder: str | Path) -> Results:
    """Read the results of a directory. Raises `ConfigError` for a missing or damaged file, or another schema."""
    path = arguments.path("folder", folder) / FILE
    try:
        tables = files.parse_json(files.read_bytes(path, _MAX_BYTES), finite=True)
        schema = tables.pop("schema", None)
        if schema != SCHEMA:
            raise ConfigError(f"{path}: schema={schema!r} must be {SCHEMA}")
        for name in ("hardware", "versions"):
            if not isinstance(tables[name], dict):
                raise TypeError(f"{name} is not an object")
        return build(tables, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {files.reason(error)}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: holds no results of probes ({error})") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from None
