"""Reads files from outside: regular files only, of bounded size, as bytes, text, JSON or TOML.

A pipe or a device can block for ever or never end, and a number in a file can ask for any amount of memory. So every
file that lmzoo did not write itself in the same process is opened here.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import tomllib
from io import BufferedReader
from pathlib import Path
from typing import Any

SETTINGS_BYTES = 1 << 20  # limit of a TOML file: the largest that lmzoo writes has a few kilobytes


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading. Raises `OSError` for anything else: a folder, a pipe, a device, a socket."""
    try:
        # O_NONBLOCK: opening a pipe without a writer would wait. It has no effect on a regular file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name with a NUL character
        raise OSError(errno.EINVAL, "the name is not valid") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes. Raises `OSError`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, limit) + 1)  # not `limit + 1`: that many bytes would be allocated
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content


def read_text(path: str | Path, limit: int) -> str:
    """Read a regular file of at most `limit` bytes of UTF-8. Raises `OSError`, or `ValueError` for other text."""
    return as_text(read_bytes(path, limit))


def as_text(content: bytes) -> str:
    """Decode UTF-8. Raises `ValueError` with the reason."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte offset {error.start}") from None


def parse_json(content: bytes | str, *, finite: bool = False) -> Any:
    """Parse JSON. Raises `ValueError` with the reason, also for nesting and numbers that Python does not take.

    With `finite`, numbers that are infinite or NaN are refused, too: JSON has none, but Python reads and writes them.
    """
    text = as_text(content) if isinstance(content, bytes) else content
    numbers: dict[str, Any] = {"parse_constant": _finite, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, **numbers)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.lower()} in line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error) if str(error).endswith("not finite") else _too_much(error)) from None


def parse_toml(content: bytes | str) -> dict[str, Any]:
    """Parse TOML. Raises `ValueError` with the reason, also for nesting and numbers that Python does not take."""
    text = as_text(content) if isinstance(content, bytes) else content
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(_too_much(error)) from None


def real_path(path: str | Path) -> Path:
    """Returns the absolute path without links. One that is a loop of links stays as it is: opening it will fail."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises RuntimeError for a loop


def reason(error: OSError) -> str:
    """Returns the reason of an `OSError` in words, without its number and its file name."""
    return error.strerror or type(error).__name__


def _finite(text: str) -> float:
    """Returns the number in a text. Raises `ValueError` for one that is infinite or NaN."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is not finite")
    return number


def _too_much(error: Exception) -> str:
    """Returns the reason that Python's own parsers do not give as a syntax error."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number or a date is out of range"
