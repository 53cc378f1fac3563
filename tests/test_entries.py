"""Tests of registry entries as values; tests/test_registry.py tests what the registry makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmzoo import entries
from lmzoo.entries import Family, Preset
from lmzoo.errors import ConfigError


def test_parse_reads_the_tables_of_a_presets_file() -> None:
    tables = {
        "family": {"summary": "A text.", "train": {"steps": 3}},
        "10m": {"model": {"d_model": 8}},
        "tiny": {"source": "ours", "train": {"seed": 1}},
    }
    entry = entries.parse("here", tables)
    assert (entry.facts, entry.train, list(entry.presets)) == ({"summary": "A text."}, {"steps": 3}, ["tiny", "10m"])
    assert entry.presets["tiny"] == Preset("tiny", "ours", {}, {"seed": 1})
    assert tables["family"] == {"summary": "A text.", "train": {"steps": 3}}, "the argument is unchanged"
    with pytest.raises(ConfigError, match=r"here: family\.train=3 must be a table"):
        entries.parse("here", {"family": {"train": 3}})


def test_merged_prefers_the_second_entry() -> None:
    first = Family("a", Path("one"), {"x": 1, "y": 1}, {"tiny": Preset("tiny", "first")}, {"steps": 1, "seed": 1})
    second = Family("b", None, {"x": 2}, {"tiny": Preset("tiny", "second"), "1m": Preset("1m")}, {"steps": 2})
    both = entries.merged(first, second)
    assert (both.name, both.folder, both.facts, both.train) == ("b", None, {"x": 2, "y": 1}, {"steps": 2, "seed": 1})
    assert [preset.source for preset in both.presets.values()] == ["second", ""]


def test_papers_is_the_text_of_papers_bib_or_nothing(tmp_path: Path) -> None:
    family = Family("a", tmp_path)
    assert (family.papers, Family("b").papers) == ("", "")
    (tmp_path / "papers.bib").write_text("@misc{a,\n\x1b[31m}\n")
    assert family.papers == "@misc{a,\n\\x1b[31m}\n"
    (tmp_path / "papers.bib").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"papers.bib: not UTF-8 at byte offset 0"):
        _ = family.papers


def test_results_is_the_object_of_results_json_or_empty(tmp_path: Path) -> None:
    family = Family("a", folder=tmp_path)
    assert family.results == Family("b").results == {}
    (tmp_path / "results.json").write_text('{"loss": 1.5}')
    assert family.results == {"loss": 1.5}
    for wrong, rule in (("[1]", "must hold an object"), ("{", "line 1, column 2")):
        (tmp_path / "results.json").write_text(wrong)
        with pytest.raises(ConfigError, match=rule):
            _ = family.results


def test_package_folder_of_packages_without_one() -> None:
    assert [entries.package_folder(name) for name in ("json", "tomllib", "sys", "__main__", "absent")] == [None] * 5


def test_natural_sorts_numbers_by_value() -> None:
    assert sorted(["10m", "1m", "tiny", "124m"], key=entries.natural) == ["tiny", "1m", "10m", "124m"]
