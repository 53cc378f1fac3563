"""Plans the cells: each model with each probe, difficulty and seed. All have the same steps and batch size."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmzoo import configs
from lmzoo.compare.grid import make_seeds, with_seed
from lmzoo.compare.plan import make_specs
from lmzoo.data.probes import DIFFICULTIES, PROBES, Level, Probe, find_level, find_probe
from lmzoo.errors import ConfigError
from lmzoo.runs.spec import RunSpec

ALL = "all"
STEPS, BATCH_SIZE = 2000, 64
_OF_THE_PROBE = ("context_length", "vocab_size")


@dataclass(frozen=True)
class Cell:
    """A run to be made: a model, called `model` in the results, on one level of a probe, with the seed of `spec`."""

    model: str
    probe: Probe
    difficulty: str
    spec: RunSpec

    @property
    def level(self) -> Level:
        """The task and its lengths."""
        return self.probe.levels[self.difficulty]

    @property
    def seed(self) -> int:
        """The seed of weights and training sequences."""
        return self.spec.train.seed

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The place of the cell in the results."""
        return self.model, self.probe.name, self.difficulty, self.seed

    @property
    def title(self) -> str:
        """The cell in words."""
        return f"{self.probe.name} {self.difficulty}, {self.model}, seed {self.seed}"

    @property
    def tokens(self) -> int:
        """The number of tokens of the training."""
        train = self.spec.train
        return train.steps * train.batch_size * train.grad_accumulation * self.level.trained

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON values."""
        level = self.level
        task = {"kind": type(level.task).__name__, **dataclasses.asdict(level.task)}
        found: dict[str, Any] = {
            "task": task,
            "trained_length": level.trained,
            "tested_length": level.tested,
            "model": configs.to_dict(self.spec.model_config(level.task.vocab_size)),
            "train": configs.to_dict(self.spec.train.resolved()),
        }
        if self.model != self.spec.model:  # the name in the results does not say which model it is
            found["name"] = self.spec.model
        return json.loads(json.dumps(found, default=str))

    @property
    def settings_hash(self) -> str:
        """The hash of the settings, as the name of a folder."""
        return hashlib.sha256(json.dumps([*self.key, self.settings]).encode()).hexdigest()[:16]


def parse_names(text: str, field: str, known: Sequence[str]) -> list[str]:
    """Parse "a,b" or "all" into different names. Raises `ConfigError`; the names themselves are not checked."""
    names = [name.strip() for name in text.split(",")]
    if names == [ALL]:
        return list(known)
    for name in names:
        if not name or names.count(name) > 1:
            raise ConfigError(f"{field}={text!r} must hold different names with commas between them, or {ALL!r}")
    return names


def parse_levels(probes: str, difficulty: str) -> list[tuple[Probe, str]]:
    """Parse the names of probes and difficulties, each "a,b" or "all". Raises `ConfigError`."""
    found = [
        (probe, name)
        for probe in map(find_probe, parse_names(probes, "probes", list(PROBES)))
        for name in parse_names(difficulty, "difficulty", DIFFICULTIES)
    ]
    for probe, name in found:
        find_level(probe, name)
    return found


def make_cells(
    models: Sequence[str],
    probes: str,
    difficulty: str,
    *,
    steps: int | None,
    seeds: int,
    settings: Mapping[str, Any],
) -> list[Cell]:
    """Make all cells, seed by seed. `settings` are overrides as in `lmzoo compare --set`.

    Raises an `LmzooError` of one line for everything that can be refused before training.
    """
    levels = parse_levels(probes, difficulty)
    settings = dict(settings)
    for key, value in settings.items():
        if key.rpartition(".")[2] in _OF_THE_PROBE:
            raise ConfigError(f"{key}={value!r} cannot be set: the probe decides it")
        if steps is not None and key in ("steps", "train.steps"):
            raise ConfigError(f"{key}={value!r} cannot be set: the option steps is given")
    for name, value in (("steps", STEPS if steps is None else steps), ("batch_size", BATCH_SIZE)):
        if not {name, f"train.{name}"} & settings.keys():
            settings[f"train.{name}"] = value
    cells = [cell for found, name in levels for cell in make_level(models, found, name, settings)]
    return with_seeds(cells, seeds)


def make_level(models: Sequence[str], probe: Probe, difficulty: str, settings: Mapping[str, Any]) -> list[Cell]:
    """Make a cell for each model on a level of `probe`. Raises an `LmzooError` for what can be refused before training.

    The context length decides how many positions a model has: as many as the longest sequence.
    """
    level = find_level(probe, difficulty)
    specs = make_specs(models, "pydocs", "char", {**settings, "model.context_length": level.tested})
    for model, spec in zip(models, specs, strict=True):
        _require_trainable(model, spec, level)
    return [Cell(model, probe, difficulty, spec) for model, spec in zip(models, specs, strict=True)]


def of_spec(name: str, spec: RunSpec, probe: Probe, difficulty: str, steps: int) -> Cell:
    """Make the cell of a model of a comparison, called `name`, with its settings and its recipe.

    It has the steps and the batches of a probe; a warm-up that was set keeps its share of the steps.
    """
    train, warmup = spec.train, spec.train.warmup_steps
    train = dataclasses.replace(
        train,
        steps=steps,
        warmup_steps=None if warmup is None else round(warmup * steps / train.steps),
        batch_size=BATCH_SIZE,
        grad_accumulation=1,
        documents="joined",
        eval_every=None,
        checkpoint_every=None,
    )
    level = find_level(probe, difficulty)
    spec = dataclasses.replace(spec, config={**spec.config, "context_length": level.tested}, train=train)
    _require_trainable(name, spec, level)
    return Cell(name, probe, difficulty, spec)


def with_seeds(cells: Sequence[Cell], seeds: int) -> list[Cell]:
    """Return the cells with their seed and those that follow it, seed by seed. Raises `ConfigError`."""
    every_seed = make_seeds(cells[0].seed, seeds)
    return [dataclasses.replace(cell, spec=with_seed(cell.spec, seed)) for seed in every_seed for cell in cells]


def _require_trainable(name: str, spec: RunSpec, level: Level) -> None:
    """Build the model without memory, which checks its settings. Raises `ConfigError` for one that is only fitted."""
    if not spec.make_model(level.task.vocab_size, device="meta").traits.trainable:
        raise ConfigError(f"model {name!r} is fitted to counts of a text, not trained: it cannot be probed")
