"""Describes the settings of a config dataclass: type, default, and the comment beside the field in its source."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from lmzoo import configs

_FIELD = re.compile(r"^    (\w+): [^#]*?(?:  # (.*))?$")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: its name, its type or choices, its default ("" if it must be given), its meaning."""

    name: str
    type: str
    default: str
    meaning: str


def describe(cls: type[Any]) -> list[Setting]:
    """Returns the settings of the dataclass `cls` in their order.

    The meaning is the comment that ends the line of the field, in the last class that has one.
    """
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            comments |= _comments(base)
    hints = configs.types_of(cls)
    return [
        Setting(field.name, _type(hints[field.name]), _default(field), comments.get(field.name, ""))
        for field in dataclasses.fields(cls)
        if field.init
    ]


def shown(value: Any) -> str:
    """Writes a value as `--set` takes it."""
    if value is None:
        return configs.NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def markdown(settings: list[Setting]) -> str:
    """Makes a table of the settings for a page of the documentation."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        cells = (f"`{setting.name}`", setting.type.replace("|", "\\|"), f"`{setting.default}`", setting.meaning)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def values(config: Any) -> Mapping[str, str]:
    """Returns the values of a config by name, as `--set` takes them."""
    return {name: shown(value) for name, value in configs.to_dict(config).items()}


def _comments(cls: type[Any]) -> dict[str, str]:
    """Returns the comments beside the fields of one class; none if its source is not at hand."""
    try:
        lines = inspect.getsource(cls).splitlines()
    except (OSError, TypeError):
        return {}
    found = (_FIELD.match(line) for line in lines)
    return {match[1]: match[2].replace("None:", "none:") for match in found if match and match[2]}


def _type(hint: Any) -> str:
    """Returns the name of a type, the choices of a Literal, or the alternatives of a union."""
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if get_args(hint):
        return " | ".join(_type(part) for part in get_args(hint))
    return configs.NONE if hint is type(None) else getattr(hint, "__name__", str(hint))


def _default(field: dataclasses.Field[Any]) -> str:
    return "" if field.default is dataclasses.MISSING else shown(field.default)
