"""Configs near a given one: with another value of one field, and of two other sizes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Literal

from lmzoo import configs
from lmzoo.errors import ConfigError
from lmzoo.model import ModelConfig

# Fields that are made larger together, with the factor of each.
GROWN: tuple[dict[str, float], ...] = (
    {"d_model": 2},
    {"n_layers": 1.5, "d_ff": 1.5, "d_state": 2},
    {"vocab_size": 2},
    {"context_length": 2},
)


def neighbors(config: ModelConfig, kept: Collection[str]) -> list[tuple[str, ModelConfig]]:
    """Returns configs that differ from `config` in one field that is not in `kept`, with the name of this field.

    A few values of each field are tried; those that the config refuses are left out.
    """
    found: list[tuple[str, ModelConfig]] = []
    for name, value in configs.to_dict(config).items():
        for other in () if name in kept else _other_values(type(config), name, value):
            with suppress(ConfigError):
                changed = dataclasses.replace(config, **{name: other})
                found += [(name, changed)] if changed != config else []
    return found


def _other_values(cls: type[ModelConfig], name: str, value: Any) -> list[Any]:
    """Returns other values for a field of a config, some of which the config may refuse."""
    hint = configs.types_of(cls)[name]
    options = [option for option in (hint, *typing.get_args(hint)) if typing.get_origin(option) is Literal]
    if options:
        return [other for option in options for other in typing.get_args(option) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value, value + 1, value // 2, 1]
    if isinstance(value, float):
        return [2 * value, value / 2, value + 0.1]
    return [2, 4, 0.5, True] if value is None else []


def resized(config: ModelConfig) -> list[dict[str, Any]]:
    """Returns overrides of fields for two other sizes of the model, the first two of `GROWN` that the config allows."""
    changes: list[dict[str, Any]] = []
    for factors in GROWN:
        values = {name: getattr(config, name, None) for name in factors}
        change = {name: int(value * factors[name]) for name, value in values.items() if value is not None}
        try:
            dataclasses.replace(config, **change)
        except ConfigError:
            continue
        if change:
            changes.append(change)
    return changes[:2]
