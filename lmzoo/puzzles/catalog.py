"""The list of puzzles, and the text of the file of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lmzoo import configs, humanize
from lmzoo.errors import ConfigError

FOLDER = Path(__file__).parent
WIDTH = 120  # columns of the files


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """A model with a fault.

    `source` names a file of `sources/` with a correct model. `fault` holds pairs of a text in it and the wrong one that
    replaces it. `caught_by` is the check that fails. `hints` go from vague to nearly the answer. `similar` is a
    published fault of the same kind (repository#issue), or empty.
    """

    number: int
    title: str
    difficulty: str
    source: str
    fault: tuple[tuple[str, str], ...]
    caught_by: str
    hints: tuple[str, ...]
    answer: str
    similar: str = ""

    @property
    def family(self) -> str:
        """The name under which its file registers the model."""
        return f"puzzle-{self.number}"

    @property
    def sound(self) -> str:
        """The text of the file without the fault."""
        text = (FOLDER / "sources" / f"{self.source}.py").read_text(encoding="utf-8")
        return _replaced(text, ('register_model("puzzle")', f'register_model("{self.family}")'))

    @property
    def broken(self) -> str:
        """The text of the file with the fault."""
        text = self.sound
        for pair in self.fault:
            text = _replaced(text, pair)
        return _replaced(text, ('"""', f'"""Puzzle {self.number}: {self.title}. One thing in this file is wrong.\n\n'))


def _replaced(text: str, pair: tuple[str, str]) -> str:
    """Returns `text` with the first occurrence of `pair[0]` replaced by `pair[1]`."""
    assert pair[0] in text, f"{pair[0]!r} is not in the file"
    return text.replace(*pair, 1)


@cache
def puzzles() -> tuple[Puzzle, ...]:
    """Returns all puzzles, from easy to hard."""
    return tuple(
        _read(number, table)
        for number, table in enumerate(configs.load_toml(FOLDER / "puzzles.toml")["puzzle"], start=1)
    )


def _read(number: int, table: Mapping[str, Any]) -> Puzzle:
    """Makes a puzzle of a table in puzzles.toml."""
    lists: dict[str, Any] = {"fault": tuple(map(tuple, table["fault"])), "hints": tuple(table["hints"])}
    return Puzzle(number=number, **{**table, **lists, "answer": table["answer"].strip()})


def puzzle(number: int) -> Puzzle:
    """Returns the puzzle with this number, from 1. Raises `ConfigError` if there is none."""
    found = puzzles()
    if not 1 <= number <= len(found):
        raise ConfigError(f"puzzle={humanize.line(str(number))} must be a number from 1 to {len(found)}")
    return found[number - 1]
