"""Tests what is printed: the list of recipes, and the table of verdicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lmzoo.reproducing.table import expected, list_text, print_verdicts, seeds, table
from lmzoo.reproducing.verdicts import Reproduction, Verdict
from tests.reproducing.small import small

GOOD = Verdict(
    text="the recurrence solves parity",
    model="recurrence",
    task="parity to 64",
    minus="",
    low=0.99,
    high=None,
    value=0.9987,
    inside=True,
    learning_rate=0.03,
    seeds=[0.9, 0.9987],
)
BAD = dataclasses.replace(GOOD, text="the table does not", low=0.4, high=0.6, inside=False, value=None, seeds=[])


def test_list_text_has_name_claim_paper_size_and_time() -> None:
    assert (
        list_text([small(), small()]).split("\n\n")
        == [
            "small\n  A recurrence counts.\n  Paper: nobody 2026\n  Size: one layer\n"
            "  Time: about 1 minutes on two CPU cores"
        ]
        * 2
    )


def test_table_has_a_line_for_each_claim() -> None:
    found = Reproduction(recipe="small", paper="", claim="", verdicts=[GOOD, BAD])
    lines = table(found, 200).plain.splitlines()
    assert lines[0].split() == ["claim", "value", "seeds", "expected", "verdict"]
    assert lines[2].split()[-8:] == ["0.999", "0.900", "to", "0.999", "at", "least", "0.99", "inside"]
    assert lines[3].split()[-6:] == ["–", "–", "0.4", "to", "0.6", "outside"]
    assert max(map(len, table(found, 60).plain.splitlines())) <= 60


def test_expected_names_the_ends_that_there_are() -> None:
    assert expected(dataclasses.replace(GOOD, low=None, high=0.02)) == "at most 0.02"
    assert expected(dataclasses.replace(GOOD, low=0.5, high=0.02)) == "0.5 to 0.02"


def test_seeds_is_a_range() -> None:
    assert seeds(GOOD) == "0.900 to 0.999"
    assert seeds(dataclasses.replace(GOOD, seeds=[0.5])) == "0.500"


def test_print_verdicts_counts_those_inside(capsys: pytest.CaptureFixture[str]) -> None:
    print_verdicts(Reproduction(recipe="small", paper="", claim="", verdicts=[GOOD, BAD]), Path("runs/small"))
    out = capsys.readouterr().out
    assert "small: 1 of 2 figures inside their bands" in out
    assert "results: runs/small/reproduced.json" in out
