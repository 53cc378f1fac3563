"""Settings: dict or TOML <-> frozen dataclass, `--set KEY=VALUE` overrides, and errors that name field, value and rule.

Types are checked by pydantic (imported only when a config is built); rules between fields are checked by the dataclass
itself in `__post_init__`, with the helpers below, so that the same rules hold for a config made in Python.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from lmzoo import files
from lmzoo.errors import ConfigError
from lmzoo.suggestions import suggest as suggest

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SIZE_LIMIT = 1 << 40  # every integer setting but a seed is below it; what fits the machine is far smaller
NUMBER_LIMIT = 1 << 63  # every integer is below it: torch takes no others
_OVERRIDE_CHARACTERS = 10_000  # limit of the text of one `--set`
NONE = "none"  # stands for None in a TOML file and in `--set KEY=none`, since TOML has no null

Config = TypeVar("Config")


def build(cls: type[Config], values: Mapping[str, Any], *, where: str = "") -> Config:
    """Make the frozen dataclass `cls` from `values`, checking names, types and rules. It gets the values as validated.

    The text "none" is read as None if the type of the field allows None. `where` (a file, a command line) is the prefix
    of error messages. Raises `ConfigError` naming field, value and rule.
    """
    from pydantic import ValidationError

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
    hints = types_of(cls)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        try:
            checked[name] = _validator(cls, name).validate_python(_converted(value, hints[name]), strict=True)
        except (ValidationError, RecursionError, OverflowError) as error:
            rule = error.errors()[0]["msg"].lower() if isinstance(error, ValidationError) else "not a usable value"
            raise ConfigError(f"{prefix}{name}={_shown(value)}: {rule}") from None
        if _largest(checked[name]) >= NUMBER_LIMIT:
            raise ConfigError(f"{prefix}{name}={_shown(value)} must be below 2^63")
    try:
        return cls(**checked)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


@lru_cache(maxsize=1000)  # a limit, since a notebook may define a class again and again
def types_of(cls: type) -> dict[str, Any]:
    """Returns the types of the fields of a dataclass by name. Do not change the result: it is cached."""
    return get_type_hints(cls)


@lru_cache(maxsize=10_000)
def _validator(cls: type, field: str) -> TypeAdapter[Any]:
    """Returns what checks the type of a field. Cached: to make one takes longer than all else in `build`."""
    from pydantic import TypeAdapter

    return TypeAdapter(types_of(cls)[field])


def _converted(value: Any, hint: Any) -> Any:
    """Returns None for "none", and a tuple for a list, where the type allows it: TOML has no null, JSON no tuples."""
    options = (hint, *get_args(hint))
    if isinstance(value, str) and value == NONE and type(None) in options:
        return None
    return tuple(value) if isinstance(value, list) and tuple in map(get_origin, options) else value


def _largest(value: Any) -> int:
    """Returns the largest size of an integer in a checked value, 0 if it holds none."""
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _shown(value: Any) -> str:
    """Returns `repr(value)`, or a description of a value that Python cannot write."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # more digits than Python writes, or nested too deeply
        return f"a very large {type(value).__name__}"


def to_dict(config: Any) -> dict[str, Any]:
    """Return the settings of a config dataclass by name."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def to_table(config: Any) -> dict[str, Any]:
    """Return the settings of a config dataclass as a TOML table, with "none" for None and lists for tuples.

    `build` reads it back.
    """
    values = {name: [*value] if isinstance(value, tuple) else value for name, value in to_dict(config).items()}
    return {name: NONE if value is None else value for name, value in values.items()}


def require(holds: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `holds`."""
    if not holds:
        raise ConfigError(message)


def require_positive(config: Any, *fields: str) -> None:
    """Require that each named field is at least 1 (an integer) or above 0 (a float)."""
    for field in fields:
        value = getattr(config, field)
        # A config that is made without `build` may hold 1.5 for an integer.
        whole = isinstance(value, int) or types_of(type(config)).get(field) in (int, int | None)
        rule = "must be a positive integer" if whole else "must be above 0"
        if not whole and is_number(value) and not math.isfinite(value):
            rule = "must be a finite number above 0"
        good = is_number(value) and 0 < value < math.inf and (isinstance(value, int) or not whole)
        require(good, f"{field}={_shown(value)} {rule}")
        require(isinstance(value, float) or value < SIZE_LIMIT, f"{field}={_shown(value)} must be below 2^40")


def require_at_most(config: Any, limit: int, *fields: str) -> None:
    """Require that each named field is at most `limit`."""
    for field in fields:
        value = getattr(config, field)
        require(value <= limit, f"{field}={value} must be at most {limit}")


def require_between(config: Any, field: str, low: float, high: float, *, below_high: bool = False) -> None:
    """Require `low <= field <= high`, or `field < high` with `below_high`."""
    value = getattr(config, field)
    inside = is_number(value) and (low <= value < high if below_high else low <= value <= high)
    ends = [f"{end:g}" if isinstance(end, float) else str(end) for end in (low, high)]
    require(inside, f"{field}={_shown(value)} must be in [{ends[0]}, {ends[1]}{')' if below_high else ']'}")


def is_number(value: object) -> bool:
    """True for an integer or a float, not for a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require_divides(config: Any, divisor: str, dividend: str) -> None:
    """Require that the field `divisor` divides the field `dividend` without remainder."""
    small, large = getattr(config, divisor), getattr(config, dividend)
    require(small > 0 and large % small == 0, f"{divisor}={small} must divide {dividend}={large}")


def require_heads(config: Any, *, rotated: bool = True) -> None:
    """Require that `n_heads` divides `d_model` unless `head_dim` is given, that `n_kv_heads` (if the config has it)
    divides `n_heads`, and that the width of a head is even if the heads are `rotated` by RoPE.
    """
    require_positive(config, "n_heads")
    if hasattr(config, "n_kv_heads"):
        require_positive(config, "n_kv_heads")
        require_divides(config, "n_kv_heads", "n_heads")
    if getattr(config, "head_dim", None) is not None:
        require_positive(config, "head_dim")
        require(not rotated or config.head_dim % 2 == 0, f"head_dim={config.head_dim} must be even to be rotated")
        return
    require_divides(config, "n_heads", "d_model")
    head_dim = config.d_model // config.n_heads
    message = f"n_heads={config.n_heads} gives head_dim={head_dim}, which must be even to be rotated"
    require(not rotated or head_dim % 2 == 0, message)


def require_inner_heads(config: Any, head_dim: str, groups: str | None = None, *, default: int = 1) -> None:
    """Require that the field `head_dim` divides the inner width `expand * d_model`, which gives the number of heads.

    `groups` names the field with the number of groups of heads, which must divide it. `default` is the width of a head
    if the field is None.
    """
    inner, given = config.expand * config.d_model, getattr(config, head_dim)
    require(given is None or inner % given == 0, f"{head_dim}={given} must divide expand * d_model = {inner}")
    if groups is not None:
        heads, count = inner // (given or default), getattr(config, groups)
        require(heads % count == 0, f"{groups}={count} must divide the number of heads, {heads}")


def require_step_sizes(config: Any) -> None:
    """Require that `dt_min` and `dt_max` are limits of the step size of a state-space layer; None is no limit."""
    require_between(config, "dt_min", 0, float("inf"), below_high=True)
    if config.dt_max is not None:
        require_positive(config, "dt_max")
        require_between(config, "dt_max", config.dt_min, float("inf"), below_high=True)


def require_experts(config: Any, *, groups: str | None = None) -> None:
    """Require that `top_k` is at most `n_experts`, and that the router gets a gradient.

    The weights of the chosen experts are divided by their sum unless `normalize` is false: of one expert, that is 1.
    `groups` names the field with the number of groups of experts, if there are any: it must divide `n_experts`, and
    `top_groups` of the groups must have at least `top_k` experts, and a group at least `group_best`.
    """
    if config.top_k == 1 and getattr(config, "normalize", True):
        wanted = "needs normalize=False" if hasattr(config, "normalize") else "must be at least 2"
        rule = "the normalized weight of one expert is always 1, so the router would get no gradient"
        raise ConfigError(f"top_k=1 {wanted}: {rule}")
    if groups is None:
        require(config.top_k <= config.n_experts, f"top_k={config.top_k} must be at most n_experts={config.n_experts}")
        return
    require_divides(config, groups, "n_experts")
    count, best = getattr(config, groups), config.top_groups
    require(best <= count, f"top_groups={best} must be at most {groups}={count}")
    open_experts = config.n_experts // count * best
    share = f"top_groups={best} of {groups}={count} groups of n_experts={config.n_experts}"
    message = f"top_k={config.top_k} must be at most the {open_experts} experts of {share}"
    require(config.top_k <= open_experts, message)
    require_positive(config, "group_best")
    size, scored = config.n_experts // count, config.group_best
    require(scored <= size, f"group_best={scored} must be at most {size}, the number of experts in a group")


def set_default(config: Any, field: str, value: Any) -> None:
    """Replace None in a frozen config by the value it stands for, so that this value is saved."""
    if getattr(config, field) is None:
        object.__setattr__(config, field, value)


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `["d_model=256", "precision=bf16"]` into `{"d_model": 256, "precision": "bf16"}`.

    A value is read as TOML (numbers, booleans, quoted strings, lists); a value that is not TOML is a string. Raises
    `ConfigError` for a text without "=", and for a value that is too long or nested too deeply.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {assignment!r} must have the form KEY=VALUE")
        text = text.strip()
        if len(text) > _OVERRIDE_CHARACTERS:
            raise ConfigError(f"--set {key}: its value has {len(text)} characters, at most {_OVERRIDE_CHARACTERS}")
        try:
            table = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            table = dict[str, Any]()
        except (ValueError, RecursionError):
            raise ConfigError(f"--set {key}: its value has too many digits or is nested too deeply") from None
        values[key] = table["value"] if table.keys() == {"value"} else text
    return values


def load_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file. Raises `ConfigError` naming the file when it is missing or is not TOML."""
    try:
        return files.parse_toml(files.read_bytes(path, files.SETTINGS_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {files.reason(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None


def dump_toml(tables: Mapping[str, Any]) -> str:
    """Write scalars, lists and tables as TOML, and read the text back, so that nobody finds another value in it.

    Raises `TypeError` for None, which TOML cannot represent (`to_table` replaces it by a text that `build` reads back),
    and `ConfigError` for a value that TOML cannot hold.
    """
    import tomli_w

    plain, text = _listed(tables), ""
    try:
        text = tomli_w.dumps(plain)
        text.encode()  # fails for a name of a file that is not UTF-8
        # As texts: a NaN is not equal to itself.
        same, wanted = (json.dumps(each, sort_keys=True, default=str) for each in (tomllib.loads(text), plain))
    except (ValueError, TypeError, RecursionError):
        same, wanted = "", None
    require(same == wanted, "a setting cannot be written as TOML")
    return text


def _listed(value: Any) -> Any:
    """Returns dicts for mappings and lists for tuples, as TOML knows them."""
    if value is None:
        raise TypeError("TOML has no null: write configs.to_table(config)")
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
