"""The settings of a run that starts from a trained model, and of its teacher: the tables [start] and [teacher]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lmzoo import configs
from lmzoo.errors import ConfigError
from lmzoo.train.distill import DistillConfig

START, TEACHER = "start", "teacher"  # tables of config.toml
_SHA256 = 64  # hexadecimal digits


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A trained model: its path, and the SHA-256 of its settings and weights, which must not change."""

    path: str
    sha256: str

    def __post_init__(self) -> None:
        valid = len(self.sha256) == _SHA256 and not {*self.sha256} - {*"0123456789abcdef"}
        configs.require(valid, f"sha256={self.sha256!r} must be {_SHA256} hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Start(Origin):
    """The model whose weights a run starts from, and the parameters that it trains."""

    tokenizer: str | None = None  # path of the tokenizer, for a saved model without one
    trained: Literal["all", "new"] = "all"  # parameters that are trained; "new": of transplanted mixers


@dataclass(frozen=True, kw_only=True)
class Teacher(Origin, DistillConfig):
    """The model that a run learns from, and the settings of the distillation."""

    def __post_init__(self) -> None:
        Origin.__post_init__(self)
        DistillConfig.__post_init__(self)


def divided(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Divides settings into those of `Start`, of `Teacher` (`start.NAME`, `teacher.NAME`), and others.

    Raises `ConfigError` for a name that they do not have.
    """
    found: dict[str, dict[str, Any]] = {START: {}, TEACHER: {}, "": {}}
    for key, value in settings.items():
        table, dot, name = key.partition(".")
        if not dot or table not in (START, TEACHER):
            found[""][key] = value
            continue
        known = {f.name for f in fields({START: Start, TEACHER: Teacher}[table])} - {"path", "sha256", "tokenizer"}
        if name not in known:
            raise ConfigError(f"{key}={value!r} is not a setting{configs.suggest(name, known)}")
        found[table][name] = value
    return found[START], found[TEACHER], found[""]
