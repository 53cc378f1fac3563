"""Tests of probes.json: what is written is read back, and nothing else is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmzoo.data.probes import PROBES
from lmzoo.errors import ConfigError
from lmzoo.probing.results import describe, read_results, to_json, write_results
from tests.probing.example import example


def test_results_are_read_back(tmp_path: Path) -> None:
    write_results(example(), tmp_path)
    assert read_results(tmp_path) == example()
    assert (tmp_path / "probes.json").read_text() == to_json(example())


def test_describe_gives_the_lines_of_a_level() -> None:
    facts = describe(PROBES["mqar"], "easy")
    assert (facts.trained_length, facts.tested_length, facts.vocab_size) == (32, 64, 64)
    assert (facts.chance_trained, facts.chance_tested, facts.solved_trained) == (0.25, 0.25, 0.99)
    measured = describe(PROBES["ngrams"], "easy")
    assert measured.chance_trained < measured.solved_trained < measured.solved_tested < 0.7
    assert measured.chance_tested == PROBES["ngrams"].levels["easy"].task.chance(128) != measured.chance_trained


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no results of probes"),
        ('"text"', "holds no results of probes"),
        ("{}", "schema=None must be 1"),
        ('{"schema": 2}', "schema=2 must be 1"),
        ('{"schema": 1, "levels": []}', "holds no results of probes"),
        ('{"schema": 1, "levels": [], "cells": [{"model": 3}], "hardware": {}, "versions": {}}', "must be given"),
    ],
)
def test_read_results_refuses_other_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "probes.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_results(tmp_path)
    assert "probes.json" in str(caught.value)


def test_read_results_refuses_a_missing_file_and_a_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_results(tmp_path)
    tables = json.loads(to_json(example()))
    tables["cells"][0]["accuracy_trained"] = "high"
    (tmp_path / "probes.json").write_text(json.dumps(tables))
    with pytest.raises(ConfigError, match="accuracy_trained='high'"):
        read_results(tmp_path)
