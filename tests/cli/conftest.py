"""Fixtures for the tests of the command line: the command itself, a text, and a small run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmzoo import cli
from tests.cli.commands import QUICK, SMALL, TEXT, Command, Result
from tests.helpers import registered_names_restored


@pytest.fixture
def lmzoo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run the command in this process: `lmzoo("list", "gpt*") -> Result`, with its output as in a pipe.

    Plug-ins are forgotten after the test: the workers of a later comparison would look for their files.
    """
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["lmzoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    with registered_names_restored():
        yield call


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sheep.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def run(lmzoo: Command, text: Path) -> Path:
    out = text.parent / "run"
    result = lmzoo("train", "gpt2", "--data", text, "--out", out, *SMALL, *QUICK)
    assert result.code == 0, result.err
    assert re.search(r"validation loss \d\.\d{4} nats per token, \d\.\d{4} bits per byte", result.out)
    return out
