"""Makes any system call that changes the disk fail, or kills the process at it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

CALLS = ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
KILLED = 137
HOW = ("error", "kill before", "kill after")


def count_calls(report: Callable[[int, str], object]) -> None:
    """Report the number and name of every call that changes the disk, for the rest of the process."""

    def count(number: int, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], options: Any) -> Any:
        report(number, name)
        return call(*arguments, **options)

    _wrap(count, CALLS)


def fail_at(
    nth: int, how: str, code: int = errno.EIO, *, ever_after: bool = False, calls: Collection[str] = CALLS
) -> None:
    """Let call number `nth` fail with `code` ("error"), or end the process before or after it ("kill before/after").

    A write always writes half of its content first. With `ever_after`, every later call fails too. Lasts for the rest
    of the process; calls whose name is not in `calls` are neither counted nor changed.
    """

    def fault(number: int, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], options: Any) -> Any:
        if number < nth or (number > nth and not ever_after):
            return call(*arguments, **options)
        if name == "write":
            descriptor, content = arguments
            call(descriptor, content[: len(content) // 2])
        elif how == "kill after":
            with suppress(OSError):
                call(*arguments, **options)
        if how.startswith("kill"):
            os._exit(KILLED)
        raise OSError(code, os.strerror(code))

    _wrap(fault, calls)


def _wrap(fault: Callable[[int, str, Callable[..., Any], tuple[Any, ...], Any], Any], calls: Collection[str]) -> None:
    made = 0

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            if name == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **options)  # opens an existing file: changes nothing
            made += 1
            return fault(made, name, call, arguments, options)

        return instead

    for name in calls:
        setattr(os, name, wrapped(name, getattr(os, name)))
