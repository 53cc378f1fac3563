"""Checks of arguments of public functions: one `InputError` that names the argument, its value and the rule."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lmzoo.errors import InputError

LIMIT = 1 << 40  # every count is below it: far more tokens or rows than any machine holds


def count(name: str, value: Any, *, least: int = 0) -> int:
    """Returns `value` as an integer in [least, 2^40). Raises `InputError`, also for a bool."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not least <= number < LIMIT:
        kind = "a positive integer" if least == 1 else f"an integer, {least} or above"
        raise InputError(f"{name}={value!r} must be {kind}{', and below 2^40' if number >= LIMIT else ''}")
    return number


def ids(name: str, values: Any, vocab_size: int) -> tuple[int, ...]:
    """Returns the token ids `values`. Raises `InputError` unless they are integers in [0, vocab_size)."""
    if isinstance(values, (str, bytes)) or not is_sequence(values):
        raise InputError(f"{name}={values!r} must be a sequence of token ids")
    found: list[int] = []
    for value in values.tolist() if isinstance(values, torch.Tensor) and values.ndim == 1 else values:
        try:
            token = operator.index(value)
        except TypeError:
            token = -1
        if isinstance(value, bool) or not 0 <= token < vocab_size:
            raise InputError(f"{name} holds the id {value!r}: ids must be in [0, vocab_size={vocab_size})")
        found.append(token)
    return tuple(found)


def is_sequence(values: Any) -> bool:
    """True for what can be iterated. A tensor without axes cannot, although it is an `Iterable`."""
    return isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0


def path(name: str, value: Any) -> Path:
    """Returns `value` as a path. Raises `InputError` unless it is a text or a path that a file can have."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name}={value!r} must be a path")
    found = Path(value)
    try:
        usable = b"\0" not in os.fsencode(found)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        usable = False
    if not usable:
        raise InputError(f"{name}={str(found)!r} cannot be the name of a file")
    return found


def generator(value: Any) -> torch.Generator | None:
    """Returns a generator or None. Raises `InputError` for anything else."""
    if value is not None and not isinstance(value, torch.Generator):
        raise InputError(f"generator={value!r} must be a torch.Generator, such as torch.Generator().manual_seed(0)")
    return value


def no_positional(function: str, values: tuple[object, ...], first: str) -> None:
    """Raise `InputError` for values by position, where a function takes names only; `first` is the likely name."""
    if values:
        raise InputError(f"{function} takes its settings by name: write {first}={values[0]!r}")
