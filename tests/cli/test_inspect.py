"""Tests of `lmzoo inspect`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import lmzoo as package
from lmzoo import humanize
from lmzoo.inspect.influence import influence_flops
from tests.cli.commands import Command


def test_inspect_writes_a_page_and_prints_the_surprise(lmzoo: Command, run: Path) -> None:
    out = run.parent / "page.html"
    done = lmzoo("inspect", run, "--text", "3 sheep", "--out", out)
    assert done.code == 0, done.err
    found = package.inspect(run, "3 sheep")
    assert done.out.splitlines() == [
        f"{run}: {found.nats:.4f} nats per token, {found.bits_per_byte:.4f} bits per byte",
        str(out),
    ]
    assert done.err == ""
    assert "<h1>How" in out.read_text(encoding="utf-8")


def test_inspect_shows_several_models_and_says_what_is_cut(
    lmzoo: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    package.load_model(run).save(run.parent / "saved", tokenizer=package.load_tokenizer(run))
    checkpoint = max((run / "checkpoints").glob("step-*"))
    done = lmzoo("inspect", run, "saved", checkpoint, "--text", "3 sheep and 4 goats went over")
    assert done.code == 0, done.err
    names = [str(run), "saved", str(checkpoint)]
    assert done.err.splitlines() == [
        f"{name}: the text has 29 tokens: only the first 16 are inspected" for name in names
    ]
    assert len({line.removeprefix(name) for name, line in zip(names, done.out.splitlines(), strict=False)}) == 1
    assert done.out.splitlines()[-1] == "inspect.html"
    assert (run.parent / "inspect.html").read_text(encoding="utf-8").count("<section") == 3


def test_inspect_says_that_it_takes_long(lmzoo: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["lmzoo.cli.inspect"], "QUIET_FLOPS", 1e5)
    done = lmzoo("inspect", run, "--text", "3 sheep", "--json")
    flops = influence_flops(package.load_model(run), 7)
    assert done.err == f"{run}: the influence takes {humanize.count(flops)}FLOPs, minutes on a CPU\n"


def test_inspect_json_writes_no_page_unless_asked(lmzoo: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    one = json.loads(lmzoo("inspect", run, "--text", "3 sheep", "--json").out)
    assert one["name"] == str(run)
    assert [token["text"] for token in one["tokens"]] == [*"3 sheep", ""]
    assert one == package.inspect(run, "3 sheep").to_dict()
    assert not (run.parent / "inspect.html").exists()
    two = json.loads(lmzoo("inspect", run, run, "--text", "3 sheep", "--json", "--out", "both.html").out)
    assert two == [one, one]
    assert (run.parent / "both.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [("", "--text is empty"), ("你", "character '你' (U+4F60) at position 0 of the text was never seen in training")],
)
def test_inspect_refuses_a_text_in_one_line(
    lmzoo: Command, run: Path, words: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    done = lmzoo("inspect", run, "--text", words)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not (run.parent / "inspect.html").exists()


def test_inspect_refuses_a_missing_run_and_a_bad_place(lmzoo: Command, run: Path) -> None:
    missing = lmzoo("inspect", run, run.parent / "nothing", "--text", "3 sheep")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    folder = lmzoo("inspect", run, "--text", "3 sheep", "--out", run)
    assert (folder.code, folder.err.count("\n")) == (2, 1)
    nowhere = lmzoo("inspect", run, "--text", "3 sheep", "--out", run / "config.toml" / "x.html")
    assert (nowhere.code, nowhere.err.count("\n")) == (2, 1)
