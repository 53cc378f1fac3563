"""Tests the order of the results of a comparison, and the file they are written to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lmzoo.compare.results import SCHEMA, write_results
from tests.compare.example import example


def test_write_results_writes_every_field_with_ranked_models_first(tmp_path: Path) -> None:
    results = example()
    tables = json.loads(write_results(results, tmp_path).read_text(encoding="utf-8"))
    assert [row["name"] for row in tables["models"]] == ["best", "close", "slow", "wild", "leaky"]
    expected = json.loads(json.dumps({"schema": SCHEMA, **asdict(results)}))
    by_name = {row["name"]: row for row in expected.pop("models")}
    assert {row["name"]: row for row in tables.pop("models")} == by_name
    assert tables == expected
