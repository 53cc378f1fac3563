"""Tests the ranked table: the order of its rows and their content."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from lmzoo.compare import table
from tests.compare.example import example


def test_rows_rank_models_by_loss_with_the_ngrams_among_them() -> None:
    found = [(row.kind, row.name, row.cells[0]) for row in table.rows(example())]
    assert found == [
        ("model", "best", "1"),
        ("model", "close", "2"),
        ("reference", "3-gram", ""),
        ("model", "slow", "3"),
        ("reference", "2-gram", ""),
        ("unranked", "wild", ""),
        ("unranked", "leaky", ""),  # although its loss of 0.1 is the lowest
    ]


def test_markdown_shows_every_figure_and_the_reasons() -> None:
    lines = table.markdown(example()).splitlines()
    assert lines[0] == "sea.txt, tokenizer char: 100 steps of 4 x 5 tokens for every model, seed 7"
    assert lines[2] == "| # | model | val loss (nats) | bits/byte | params | train tok/s | decode tok/s |"
    assert "| 3 | slow | 1.900 | 2.741 | 113 k | 1.23 k | 12 |" in lines
    assert "|  | *3-gram* | *1.700* | *2.450* |  |  |  |" in lines
    assert "- **wild** has no rank: step 3: the loss is nan \\| \\<b\\>" in lines
    assert "0.100" not in "\n".join(lines)
    assert "2.8 % of the <validation> split is copied." in lines


def test_rich_table_shows_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=100)
    console.print(table.rich_table(example()))
    shown = capsys.readouterr().out
    names = ["best", "close", "3-gram", "slow", "2-gram", "wild", "leaky"]
    assert [next(name for name in names if name in line) for line in shown.splitlines() if line[:1] == "│"] == names
    assert "leaky has no rank: failed causality" in shown


def test_print_results_prints_samples_and_the_path_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_results(example(), Path("somewhere"))
    shown = capsys.readouterr().out
    assert "The <sea> and what close wrote" in shown
    assert "2.8 % of the <validation> split is copied." in shown
    assert "report: somewhere/report.html" in shown
