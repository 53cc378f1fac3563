"""Tests of the table: its entries and marks, and that no terminal is too narrow."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lmzoo.probing.table import block, print_results, rows, training_note
from tests.probing.example import cell, example


def test_rows_show_each_level_at_both_lengths() -> None:
    assert rows(example(), ["solver", "guesser"]) == [
        ["mqar easy", "32", "0.250", "0.990", "✓ 1.000", "○ 0.250"],
        ["", "64", "0.250", "0.990", "1/2 0.986", "0.600"],
        ["parity easy", "16", "0.500", "0.990", "✓ 1.000", "diverged"],
        ["", "64", "0.500", "0.990", "○ 0.520", "diverged"],
    ]


def test_rows_leave_out_what_was_not_probed() -> None:
    results = example()
    only = dataclasses.replace(results, cells=[*results.cells, cell("late", "mqar")])
    assert [row[-1] for row in rows(only, ["late"])] == ["✓ 1.000", "0.500", "–", "–"]


def test_rows_count_the_seeds_that_diverged() -> None:
    cells = [cell("a", "mqar", 1), cell("a", "mqar", 2, None, None), cell("a", "mqar", 3)]
    some = dataclasses.replace(example(), cells=cells)
    assert [row[-1] for row in rows(some, ["a"])][:2] == ["1/3 diverged"] * 2
    unknown = dataclasses.replace(cell("a", "mqar"), accuracy_tested=None)  # of a file that somebody changed
    assert [row[-1] for row in rows(dataclasses.replace(some, cells=[unknown]), ["a"])][:2] == ["✓ 1.000", "–"]


def test_training_note_says_how_long_the_models_were_trained() -> None:
    def trained(*steps: int) -> str:
        cells = [
            dataclasses.replace(cell("a", "mqar", n), settings={"train": {"steps": number, "batch_size": 64}})
            for n, number in enumerate(steps)
        ]
        return training_note(dataclasses.replace(example(), cells=cells))

    assert "was trained from new weights on each probe, 2,000 steps of 64 sequences" in trained(2000, 2000)
    assert "30 to 2,000 steps of 64 sequences" in trained(2000, 30)
    assert training_note(example()) == "", "the settings are not known"


def test_block_lines_up_with_the_models() -> None:
    lines = block(example(), ["solver"], 200).plain.splitlines()
    assert lines[0].split() == ["probe", "length", "chance", "solved", "solver"]
    assert len(lines) == 6


@pytest.mark.parametrize(("columns", "tables"), [("200", 1), ("80", 3), ("40", 6)])
def test_print_results_divides_the_models_between_tables(
    columns: str, tables: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    results = example()
    names = [f"family{n}.tiny" for n in range(6)]
    results = dataclasses.replace(results, cells=[cell(name, "mqar") for name in names])
    print_results(results, Path("runs/probe"))
    out = capsys.readouterr().out
    assert len(re.findall("^probe ", out, re.MULTILINE)) == tables
    assert all(name in out for name in names)
    if columns == "80":
        assert max(map(len, out.splitlines())) <= 80


def test_print_results_explains_marks_and_problems(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(example(), Path("runs/probe"))
    out = capsys.readouterr().out
    assert "✓ solved; ○ at chance" in out
    assert "Means over the seeds; n/m: solved with n of m seeds." in out
    assert "guesser on parity easy diverged: the loss is nan" in out
    assert "results: runs/probe/probes.json" in out
