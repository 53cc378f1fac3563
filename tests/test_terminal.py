"""Tests consoles and tables: no figure is cut at any width, and NO_COLOR turns off every style."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from lmzoo import terminal

HEADINGS = ["model", "val loss (nats)", "params", "source"]
ROWS = [
    ["gpt2.tiny", "1.234", "314 k", "a long text that may be wrapped between its words"],
    ["lstm", "2", "1.89 k", ""],
]


def shown(width: int) -> str:
    output = io.StringIO()
    made = terminal.table(
        HEADINGS, ROWS, width=width, left=["model", "source"], wrapped="source", drop=["source", "params"]
    )
    Console(file=output, width=width).print(made)
    return output.getvalue()


@pytest.mark.parametrize("width", range(22, 100, 3))
def test_table_shows_a_column_whole_or_not_at_all(width: int) -> None:
    text = shown(width)
    words = text.split()
    assert {"gpt2.tiny", "1.234"} <= {*words}
    for heading, whole in (("params", ["314 k", "1.89 k"]), ("source", ["words"])):
        left_out = heading in text.partition("left out")[2]
        assert all((cell in text) != left_out for cell in whole), text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [32, 60])
def test_table_gives_chinese_characters_two_columns(width: int) -> None:
    rows = [["国风语言模型.小型", "1.62"], ["国风语言模型的另一个很长的名字", "1.63"], ["gpt2", "1.5"]]
    made = terminal.table(["model", "loss"], rows, width=width, left=["model"], wrapped="model")
    lines = [line for line in made.plain.splitlines() if re.search(r"\d$", line)]
    assert len(lines) == len(rows)
    assert len({cell_len(line) for line in lines}) == 1, "the figures stand below each other"
    assert max(map(cell_len, made.plain.splitlines())) <= width
    assert "的另一个很长的名字" in made.plain.replace("\n", "").replace(" ", "").replace("1.63", "")


def test_table_is_as_wide_as_it_needs_to_be_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.columns() == terminal.PIPED_COLUMNS
    assert "a long text that may be wrapped between its words" in shown(terminal.columns())
    assert terminal.reading_columns() == terminal.READING_COLUMNS


def test_columns_is_the_width_that_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert terminal.columns() == terminal.reading_columns() == 50
    assert terminal.results_console().width == 50


def test_reflow_wraps_paragraphs_in_a_terminal_and_nothing_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "one two three four\nfive a-long-name\n\nsix"
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.reflow(text, 2) == text
    monkeypatch.setenv("COLUMNS", "12")
    assert terminal.reflow(text, 2) == "one two\n  three four\n  five\n  a-long-name\n\nsix"


@pytest.mark.parametrize(("value", "styled"), [("1", False), ("", True)])
def test_results_console_obeys_no_color(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, styled: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", value)
    assert terminal.no_color() != styled
    terminal.results_console().print("word", style="bold red")
    assert ("\x1b[" in capsys.readouterr().out) == styled


def test_progress_console_writes_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not terminal.in_notebook()
    assert not terminal.progress_console().is_terminal
    terminal.progress_console().print("note")
    assert capsys.readouterr() == ("", "note\n")


def test_results_console_and_table_escape_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal.results_console()
    console.print("a\x1b[2J\u202eb", markup=False)
    console.print(terminal.table(["model", "loss"], [["m\x9b", "1.5\r"]], width=console.width, left=["model"]))
    out = capsys.readouterr().out
    assert r"a\x1b[2J\u202eb" in out
    assert r"m\x9b" in out
    assert r"1.5\r" in out


def test_shown_escapes_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.shown("a\x1b\n") == "a\x1b\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert terminal.shown("a\x1b\n中") == "a\\x1b\n中"


@pytest.mark.parametrize(("term", "draws"), [("xterm-256color", True), ("dumb", False)])
def test_progress_console_draws_no_bar_where_the_cursor_cannot_move(
    monkeypatch: pytest.MonkeyPatch, term: str, draws: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    assert terminal.progress_console().is_terminal is draws
