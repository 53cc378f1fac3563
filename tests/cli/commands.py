"""The small runs that the tests of the command line make, and the result of a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

TEXT = "".join(f"{i} sheep and {i * 7 % 13} goats went over the hill.\n" for i in range(200))


SMALL = ["--set", "d_model=16", "--set", "n_layers=1", "--set", "n_heads=2", "--set", "context_length=16"]


QUICK = ["--set", "steps=4", "--set", "batch_size=4"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]
