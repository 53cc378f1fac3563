"""Tests of `lmzoo puzzle`: the list, the file with its falling loss, hints and answers; nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo.puzzles import puzzles
from tests.cli.commands import Command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_puzzle_lists_numbers_titles_and_difficulties(lmzoo: Command) -> None:
    listed = lmzoo("puzzle")
    assert (listed.code, listed.err) == (0, "lmzoo puzzle NUMBER begins one\n")
    rows = [line.split(maxsplit=1) for line in listed.out.splitlines()[2:]]
    assert [(int(number), rest.rsplit(maxsplit=1)) for number, rest in rows] == [
        (one.number, [one.title, one.difficulty]) for one in puzzles()
    ]


def test_puzzle_writes_a_file_that_learns_and_fails(lmzoo: Command, place: Path) -> None:
    begun = lmzoo("puzzle", 4, "--out", "mine.py")
    assert begun.code == 0, begun.err
    lines = begun.out.splitlines()
    assert lines[0] == "puzzle 4, easy: Everything in proportion"
    losses = [float(line.split()[-1]) for line in lines if line.startswith("  step ")]
    assert len(losses) == 5
    assert losses[-1] < 0.8 * losses[0]
    assert lines[-1].endswith("try: lmzoo check mine.py")
    assert (place / "mine.py").read_text(encoding="utf-8") == puzzles()[3].broken
    checked = lmzoo("check", "mine.py", "--only", "causality")
    assert checked.code == 1
    assert "FAIL  causality" in checked.out


def test_puzzle_gives_hints_one_by_one_and_the_answer(
    lmzoo: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = puzzles()[10]
    assert len(one.hints) == 3
    for place_of, arguments in enumerate((["--hint"], ["--hint", 2], ["--hint", 3]), start=1):
        shown = lmzoo("puzzle", one.number, *arguments)
        following = f"--hint {place_of + 1}" if place_of < 3 else "--answer"
        assert (shown.code, shown.out) == (0, f"{one.hints[place_of - 1]}\n")
        assert shown.err == f"next: lmzoo puzzle {one.number} {following}\n"
    assert lmzoo("puzzle", one.number, "--answer").out == f"{one.answer}\n"
    monkeypatch.setenv("COLUMNS", "80")
    for wrapped in (lmzoo("puzzle", one.number, "--answer"), lmzoo("puzzle", one.number, "--hint", 2)):
        assert max(map(len, wrapped.out.splitlines())) <= 80
    assert wrapped.out.split() == one.hints[1].split()
    monkeypatch.delenv("COLUMNS")
    assert lmzoo("puzzle", 2, "--answer").out.endswith("\n\nA published fault of this kind: ml-explore/mlx-lm#93\n")
    assert not list(place.iterdir())


def test_puzzle_refuses_what_it_cannot_do_and_writes_nothing(lmzoo: Command, place: Path) -> None:
    (place / "mine.py").write_text("my work")
    last = len(puzzles())
    for arguments, message in (
        ([0], f"puzzle=0 must be a number from 1 to {last}"),
        ([last + 1], f"puzzle={last + 1} must be a number from 1 to {last}"),
        (["--answer"], "the number of a puzzle is missing, as in: lmzoo puzzle 1"),
        ([1, "--hint", "9"], "hint=9 must be a number from 1 to 2"),
        ([1, "--hint", "--answer"], "only one of --out, --hint and --answer can be given"),
        ([1, "--out", "mine.py"], "out=mine.py exists: it is left as it is"),
        ([1, "--out", "other.txt"], "out=other.txt must be the name of a Python file, such as puzzle_1.py"),
        ([1, "--out", "absent/other.py"], "absent/other.py: cannot be written"),
    ):
        result = lmzoo("puzzle", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert message in result.err
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("mine.py", "my work")]
