"""Settings: dict or TOML <-> frozen dataclass, `--set KEY=VALUE` overrides, and errors that name field, value and rule.

Types are checked by pydantic (imported only when a config is built); rules between fields are checked by the dataclass
itself in `__post_init__`, with the helpers below, so that the same rules hold for a config made in Python.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lmzoo.errors import ConfigError

NONE = "none"  # stands for None in a TOML file and in `--set KEY=none`, since TOML has no null

Config = TypeVar("Config")


def build(cls: type[Config], values: Mapping[str, Any], *, where: str = "") -> Config:
    """Make the frozen dataclass `cls` from `values`, checking names, types and rules.

    The text "none" is read as None if the type of the field allows None. `where` (a file, a command line) is the prefix
    of error messages. Raises `ConfigError` naming field, value and rule.
    """
    from pydantic import TypeAdapter, ValidationError

    prefix = f"{where}: " if where else ""
    names = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(
                f"{prefix}{name}={values[name]!r} is not a setting of {cls.__name__}{suggest(name, names)}"
            )
    required = [f.name for f in dataclasses.fields(cls) if f.init and f.default is f.default_factory]  # type: ignore[arg-type]
    for name in required:
        if name not in values:
            raise ConfigError(f"{prefix}{name} must be given to {cls.__name__}")
    hints = get_type_hints(cls)
    values = {name: _converted(value, hints[name]) for name, value in values.items()}
    for name, value in values.items():
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{prefix}{name}={value!r}: {first['msg'].lower()}") from None
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def _converted(value: Any, hint: Any) -> Any:
    """Returns None for "none", and a tuple for a list, where the type allows it: TOML has no null, JSON no tuples."""
    options = (hint, *get_args(hint))
    if value == NONE and type(None) in options:
        return None
    return tuple(value) if isinstance(value, list) and tuple in map(get_origin, options) else value


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" if a known name is similar to `name`, else a list of the known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def to_dict(config: Any) -> dict[str, Any]:
    """Return the settings of a config dataclass by name."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def to_table(config: Any) -> dict[str, Any]:
    """Return the settings of a config dataclass as a TOML table, with "none" for None; `build` reads it back."""
    return {name: NONE if value is None else value for name, value in to_dict(config).items()}


def require(holds: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `holds`."""
    if not holds:
        raise ConfigError(message)


def require_positive(config: Any, *fields: str) -> None:
    """Require that each named field is at least 1 (an integer) or above 0 (a float)."""
    for field in fields:
        value = getattr(config, field)
        rule = "must be a positive integer" if isinstance(value, int) else "must be above 0"
        require(math.isfinite(value) and value > 0, f"{field}={value} {rule}")


def require_between(config: Any, field: str, low: float, high: float, *, below_high: bool = False) -> None:
    """Require `low <= field <= high`, or `field < high` with `below_high`."""
    value = getattr(config, field)
    inside = low <= value < high if below_high else low <= value <= high
    require(inside, f"{field}={value} must be in [{low:g}, {high:g}{')' if below_high else ']'}")


def require_divides(config: Any, divisor: str, dividend: str) -> None:
    """Require that the field `divisor` divides the field `dividend` without remainder."""
    small, large = getattr(config, divisor), getattr(config, dividend)
    require(small > 0 and large % small == 0, f"{divisor}={small} must divide {dividend}={large}")


def require_heads(config: Any, *, rotated: bool = True) -> None:
    """Require that `n_heads` divides `d_model`, that `n_kv_heads` (if the config has it) divides `n_heads`, and that
    `head_dim` is even if the heads are `rotated` by RoPE.
    """
    require_positive(config, "n_heads")
    if hasattr(config, "n_kv_heads"):
        require_positive(config, "n_kv_heads")
        require_divides(config, "n_kv_heads", "n_heads")
    require_divides(config, "n_heads", "d_model")
    head_dim = config.d_model // config.n_heads
    message = f"n_heads={config.n_heads} gives head_dim={head_dim}, which must be even to be rotated"
    require(not rotated or head_dim % 2 == 0, message)


def set_default(config: Any, field: str, value: Any) -> None:
    """Replace None in a frozen config by the value it stands for, so that this value is saved."""
    if getattr(config, field) is None:
        object.__setattr__(config, field, value)


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `["d_model=256", "precision=bf16"]` into `{"d_model": 256, "precision": "bf16"}`.

    A value is read as TOML (numbers, booleans, quoted strings, lists); a value that is not TOML is a string.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {assignment!r} must have the form KEY=VALUE")
        try:
            values[key] = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text.strip()
    return values


def load_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file. Raises `ConfigError` naming the file when it is missing or is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None


def dump_toml(tables: Mapping[str, Any]) -> str:
    """Write scalars, lists of scalars and one level of tables as TOML.

    Raises `TypeError` for None, which TOML cannot represent: `to_table` replaces it by a text that `build` reads back.
    """
    lines = [f"{key} = {_toml_value(value)}" for key, value in tables.items() if not isinstance(value, Mapping)]
    for key, table in tables.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{name} = {_toml_value(value)}" for name, value in table.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml_value(value: Any) -> str:
    if value is None:
        raise TypeError("TOML has no null: write configs.to_table(config)")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return json.dumps(value, ensure_ascii=False)  # JSON and TOML write strings, numbers and booleans the same way
