"""Tests that the results in a directory are not replaced by those of another comparison."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare import Results, compare
from lmzoo.compare.earlier import refuse_other_results
from lmzoo.compare.results import FILE, write_results
from lmzoo.errors import ConfigError
from tests.compare.example import example
from tests.compare.small import write_text

SETTINGS = {"steps": 2, "batch_size": 4, "context_length": 8}
BUDGET = {"kind": "steps", "amount": 100, "documents": "joined"}


@pytest.fixture
def kept() -> Results:
    found = example()
    return dataclasses.replace(found, budget={**found.budget, **BUDGET})


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        (
            "corpus",
            {"name": "hill.txt", "sha256": "ef"},
            "data='hill.txt', but out=.* holds a comparison with 'sea.txt'",
        ),
        ("corpus", {"sha256": "ef"}, "data='ef', but out=.* holds a comparison with 'abab.*'"),
        ("tokenizer", {"spec": "byte", "sha256": "ef"}, "tokenizer='byte', but .* with 'char'"),
        ("budget", {"batch_size": 8}, "batch_size=8, but .* with 4"),
        ("budget", {"documents": "isolated"}, "documents='isolated', but .* with 'joined'"),
        ("budget", {"kind": "tokens", "steps": 101}, "budget='steps=101', but .* with 'steps=100'"),
        ("budget", {"kind": "seconds", "amount": 9}, "budget='seconds=9', but .* with 'steps=100'"),
        ("match", {"measure": "params", "target": 300e3}, r"match='params=300000', but .* with None"),
    ],
)
def test_refuse_other_results_names_what_differs(
    kept: Results, field: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_results(kept, tmp_path)
    now = dataclasses.replace(kept, **{field: {**getattr(kept, field), **change}})
    with pytest.raises(ConfigError, match=f"^{message}: compare in another directory$"):
        refuse_other_results(tmp_path, now)


def test_refuse_other_results_compares_all_digits(kept: Results, tmp_path: Path) -> None:
    write_results(dataclasses.replace(kept, budget={**kept.budget, "steps": 1_234_567}), tmp_path)
    now = dataclasses.replace(kept, budget={**kept.budget, "steps": 1_234_568})
    with pytest.raises(ConfigError, match=r"^budget='steps=1234568', but .* with 'steps=1234567'"):
        refuse_other_results(tmp_path, now)


def test_refuse_other_results_lets_runs_be_added_and_evaluated_anew(kept: Results, tmp_path: Path) -> None:
    write_results(kept, tmp_path)
    more: dict[str, Any] = {"models": [], "seeds": [7, 8], "protocol": {"stride": 2}, "tuning": {"setting": "x"}}
    tokens = {**kept.budget, "kind": "tokens", "amount": 2000}
    refuse_other_results(tmp_path, dataclasses.replace(kept, budget=tokens, **more))
    refuse_other_results(tmp_path / "new", kept)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2, "corpus": 3}'])
def test_refuse_other_results_ignores_what_it_cannot_read(kept: Results, content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    refuse_other_results(tmp_path, kept)


def test_compare_does_not_replace_the_results_of_another_text(tmp_path: Path) -> None:
    """The runs of another model have other names, so none of them is in the way."""
    out, other = tmp_path / "out", tmp_path / "other.txt"
    text = write_text(tmp_path)
    other.write_text(Path(text).read_text() * 2)
    compare(["bigram"], text, out, settings=SETTINGS)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"data='other.txt', but out=.* holds a comparison with 'sea.txt'"):
        compare(["ngram"], str(other), out, settings=SETTINGS)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
