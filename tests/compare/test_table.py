"""Tests the ranked table: the order of its rows and their content."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from lmzoo.compare import table
from tests.compare.example import example, model


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
    assert "2.8 % of the \\<validation\\> split is copied." in lines


def test_summary_says_that_a_comparison_is_not_finished() -> None:
    early = dataclasses.replace(example(), complete=False)
    assert table.markdown(early).startswith("Not finished. sea.txt, tokenizer char: 100 steps")


def test_copied_text_states_what_was_left_out() -> None:
    results = example()
    assert table.copied_text(results) == "2.8 % of the <validation> split is copied."
    removed = {"documents": 2, "text": "2 documents were left out."}
    results = dataclasses.replace(results, corpus={**results.corpus, "near_duplicates": removed})
    assert table.copied_text(results) == "2 documents were left out. 2.8 % of the <validation> split is copied."
    assert "2 documents were left out." in table.markdown(results)


@pytest.mark.parametrize("width", [30, 50, 80, 140])
def test_rich_table_shows_the_same_rows_and_cuts_no_figure(width: int) -> None:
    results = example()
    results = dataclasses.replace(results, models=[*results.models, model("a.longer-name", 2.5, params=1_890)])
    output = io.StringIO()
    Console(file=output, width=width).print(table.rich_table(results, width))
    lines = output.getvalue().splitlines()
    for row in table.rows(results):
        line = next(line for line in lines if row.name in line)
        cells = [cell for cell in row.cells if cell]
        assert [cell in line for cell in cells[:2]] == [True] * len(cells[:2])
        assert row.cells[2] in line
        for heading, cell in zip(table.HEADINGS, row.cells, strict=True):
            assert cell in line or heading in table.DROPPED
    assert ("left out" in output.getvalue()) == (width < 80)


@pytest.mark.parametrize("width", [50, 80])
def test_rich_table_wraps_a_name_that_leaves_no_room(width: int) -> None:
    name = "my_laboratory.gated_delta_hybrid_with_sliding_windows_and_a_very_long_preset_name"
    results = dataclasses.replace(example(), models=[*example().models, model(name, 2.5)])
    lines = table.rich_table(results, width).plain.splitlines()
    assert max(map(len, lines)) <= width
    first = next(number for number, line in enumerate(lines) if "my_laboratory" in line)
    column = lines[first].index("my_laboratory")
    parts = [line[column:].split("  ")[0] for line in lines[first:]]
    assert "".join(parts).startswith(name)


def test_print_results_prints_samples_and_the_path_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_results(example(), Path("somewhere"))
    shown = capsys.readouterr().out
    assert "The <sea> and what close wrote" in shown
    assert "2.8 % of the <validation> split is copied." in shown
    assert "report: somewhere/report.html" in shown
    assert "leaky has no rank: failed causality" in shown
