"""Tests the commands about texts."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from lmzoo.data import embedded
from tests.cli.commands import TEXT, Command


def test_data_show_describes_a_text(lmzoo: Command, text: Path) -> None:
    result = lmzoo("data", "show", text)
    assert result.code == 0
    assert "training:   1 document, " in result.out
    assert f"{int(0.9 * len(TEXT)):,} characters" in result.out
    assert "% of the 50-character sequences of the validation split also stand in the training split" in result.out
    assert "built from" not in result.out


def test_data_show_names_the_python_version_of_a_built_in_corpus(
    lmzoo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_prose", lambda: iter(f"document {i}" for i in range(20)))
    monkeypatch.setenv("LMZOO_CACHE", str(tmp_path / "cache"))
    result = lmzoo("data", "show", "pydocs")
    assert "training:   18 documents" in result.out
    assert f"built from: the standard library of CPython {platform.python_version()}; another" in result.out


def test_data_show_prints_json(lmzoo: Command, text: Path) -> None:
    found = json.loads(lmzoo("data", "show", text, "--json").out)
    assert found["train"]["characters"] + found["val"]["characters"] == len(TEXT)
    assert found["train"]["documents"] == 1
    assert 0 <= found["overlap"]["share"] < 1


def test_data_show_states_what_was_left_out(lmzoo: Command, copied: str) -> None:
    shown = lmzoo("data", "show", copied).out
    assert "validation: 1 document, " in shown
    assert "removed:    2 documents (" in shown
    assert "of the validation split nearly equal documents of the training split: they were left out." in shown
    found = json.loads(lmzoo("data", "show", copied, "--json").out)
    removed = found["near_duplicates"]
    assert (removed["documents"], found["val"]["documents"]) == (2, 1)
    assert removed["share"] == pytest.approx(removed["n_bytes"] / (removed["n_bytes"] + found["val"]["bytes"]))


def test_data_show_says_nothing_of_near_duplicates_in_one_document(lmzoo: Command, text: Path) -> None:
    assert "removed:" not in lmzoo("data", "show", text).out
    assert json.loads(lmzoo("data", "show", text, "--json").out)["near_duplicates"] is None


def test_data_show_refuses_what_it_cannot_read(lmzoo: Command, tmp_path: Path) -> None:
    for name, message in ((tmp_path / "none.txt", "no such file"), ("hf:stories", "is a stream"), ("", "corpus ''")):
        result = lmzoo("data", "show", name)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1


def test_data_show_states_the_entropy_rate_of_a_synthetic_source(lmzoo: Command) -> None:
    assert "entropy:    1.216219 nats per character (within 6e-08)" in lmzoo("data", "show", "hmm").out
    rate = json.loads(lmzoo("data", "show", "hmm", "--json").out)["entropy_rate"]
    assert rate["nats"] == pytest.approx(1.2162191, abs=1e-7)
    assert rate["error"] < 1e-7


def test_data_show_escapes_the_name_of_a_file(lmzoo: Command, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J.txt"
    path.write_text(TEXT)
    result = lmzoo("data", "show", path)
    assert r"name:       a\x1b[2J.txt" in result.out
    assert "\x1b" not in result.out
