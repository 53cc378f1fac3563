"""Tests the order of the results of a comparison, and the file they are written to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lmzoo.compare.results import SCHEMA, portable, write_results
from tests.compare.example import example


def test_write_results_writes_every_field_with_ranked_models_first(tmp_path: Path) -> None:
    results = example()
    tables = json.loads(write_results(results, tmp_path).read_text(encoding="utf-8"))
    assert [row["name"] for row in tables["models"]] == ["best", "close", "slow", "wild", "leaky"]
    expected = json.loads(json.dumps({"schema": SCHEMA, **asdict(results)}))
    by_name = {row["name"]: row for row in expected.pop("models")}
    assert {row["name"]: row for row in tables.pop("models")} == by_name
    assert tables == expected


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("lmzoo compare a --data /home/ada/novel.txt", "lmzoo compare a --data novel.txt"),
        ("lmzoo compare a --data='/home/ada/*/b c.txt'", "lmzoo compare a --data='b c.txt'"),
        ("/home/ada/mine.py:9: KeyError", "mine.py:9: KeyError"),
        ("1/2 of a/b and 3 / 4", "1/2 of a/b and 3 / 4"),
        (f"see {Path.cwd()}/runs/x", "see runs/x"),
    ],
)
def test_portable_removes_the_folders_of_absolute_paths(text: str, without: str) -> None:
    assert portable(text) == without
