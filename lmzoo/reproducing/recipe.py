"""Recipes: what is trained to reproduce a result of a paper, and the bands in which its figures are expected.

A recipe is a TOML file in the folder `recipes`, with the fields of the classes below (docs/probes.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from lmzoo import configs, files
from lmzoo.configs import require, require_positive
from lmzoo.data.probes import Level, Probe, find_probe
from lmzoo.errors import ConfigError

_FOLDER = resources.files("lmzoo.reproducing").joinpath("recipes")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the registry with settings, under a name of its own."""

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A level of a probe: its task, with other fields than the easy level has, and its lengths."""

    name: str
    probe: str
    trained: int
    tested: int
    fields: dict[str, Any] = field(default_factory=dict)

    def make_probe(self) -> Probe:
        """Returns the probe with this level only. Raises `ConfigError`."""
        found = find_probe(self.probe)
        easy = next(iter(found.levels.values())).task
        known = [each.name for each in dataclasses.fields(easy)]
        for name, value in self.fields.items():
            require(name in known, f"{name}={value!r} is not a field of {self.probe}{configs.suggest(name, known)}")
        task = dataclasses.replace(easy, **self.fields)
        return dataclasses.replace(found, levels={self.name: Level(task, self.trained, self.tested)})


@dataclass(frozen=True, kw_only=True)
class Text:
    """A comparison of models of the registry on a text, with the options of `lmzoo compare`."""

    data: str
    models: list[str]
    match: str
    budget: str
    tune: str | None = None
    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A figure and the band [low, high] in which it is expected.

    The figure is the accuracy of `model` on `task`; or without a task, the loss of `model` on the text minus that of
    the model `minus`, in nats per token.
    """

    text: str
    model: str
    task: str = ""
    minus: str = ""
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        require(bool(self.task) != bool(self.minus), f"claim {self.text!r}: one of task and minus must be given")
        require(self.low <= self.high, f"low={self.low} must be at most high={self.high}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A result of a paper: `claim` in a sentence, `size` and `method` in words, `minutes` on two CPU cores.

    Each of the `models` is trained on each of the `tasks` with each of the `learning_rates` and `seeds` seeds;
    `settings` are the same for all of them.
    """

    name: str
    paper: str
    claim: str
    size: str
    method: str
    minutes: int
    models: Sequence[Model]
    tasks: Sequence[Task]
    learning_rates: Sequence[float]
    seeds: int
    settings: dict[str, Any]
    claims: Sequence[Claim]
    text: Text | None = None

    def __post_init__(self) -> None:
        require_positive(self, "minutes", "seeds")
        require(bool(self.learning_rates and self.claims), "learning_rates and claims must not be empty")
        for title, names in (("models", self.models), ("tasks", self.tasks)):
            every = [each.name for each in names]
            require(len(every) == len(set(every)), f"{title}: two of them have the same name")
        compared: list[str] = [] if self.text is None else self.text.models
        for claim in self.claims:
            known = [each.name for each in self.models] if claim.task else compared
            for name in (claim.model, claim.minus or claim.model):
                require(name in known, f"model={name!r} of a claim is not in the recipe{configs.suggest(name, known)}")
            tasks = ["", *(task.name for task in self.tasks)]
            require(claim.task in tasks, f"task={claim.task!r} of a claim is not in the recipe")


def parse_recipe(name: str, content: bytes | str) -> Recipe:
    """Make a recipe from TOML. Raises `ConfigError` naming the recipe, the field and the rule."""
    try:
        tables = files.parse_toml(content)
    except ValueError as error:
        raise ConfigError(f"recipe {name}: cannot be read as TOML: {error}") from None
    where = f"recipe {name}"
    for key, cls in (("models", Model), ("tasks", Task), ("claims", Claim)):
        tables[key] = [configs.build(cls, entry, where=where) for entry in tables.get(key, [])]
    if "text" in tables:
        tables["text"] = configs.build(Text, tables["text"], where=where)
    return configs.build(Recipe, {"name": name, "settings": {}, **tables}, where=where)


def list_recipes() -> list[str]:
    """Returns the names of all recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def find_recipe(name: str) -> Recipe:
    """Returns the recipe of this name. Raises `ConfigError` with the most similar name."""
    known = list_recipes()
    if name not in known:
        raise ConfigError(f"name={name!r} is not a recipe{configs.suggest(name, known)}")
    return parse_recipe(name, _FOLDER.joinpath(f"{name}.toml").read_bytes())
