"""Tests of `lmzoo show`."""

from __future__ import annotations

import json
import re
import tomllib
import webbrowser
from pathlib import Path

import pytest

from lmzoo.bench import ops
from lmzoo.cli import show as cli_show
from tests.cli.commands import Command


def test_show_prints_sizes_drawing_and_settings(lmzoo: Command) -> None:
    shown = lmzoo("show", "gpt2.124m", "--vocab-size", 50257)
    assert "124,439,808" in shown.out
    assert "n_layers = 12" in shown.out
    assert "\n+- 12 x ---" in shown.out, "the drawing"


def test_show_prints_the_whole_recipe_with_defaults(lmzoo: Command) -> None:
    """The same tables as in the config.toml of a run."""
    shown = lmzoo("show", "gpt2.tiny", "--set", "steps=300", "--set", "d_model=32").out
    tables = tomllib.loads(shown[shown.index("[model]") :])
    assert tables["train"]["steps"] == 300
    assert tables["train"]["warmup_steps"] == 15
    assert tables["train"]["schedule"] == "cosine"
    assert tables["model"]["d_model"] == 32
    assert lmzoo("show", "gpt2", "--set", "d_modl=3").err.count("\n") == 1


def test_show_settings_explains_each(lmzoo: Command) -> None:
    shown = lmzoo("show", "llama.tiny", "--settings", "--set", "window=8").out
    assert re.search(r'^window +8 +none +int \| none +tokens that layers "rope" and', shown, re.MULTILINE)
    assert re.search(r"^learning_rate +0\.\d+ +0\.001 +float +peak of the schedule", shown, re.MULTILINE)
    assert "Llama" not in shown, "no card"


def test_show_matches_a_budget(lmzoo: Command) -> None:
    shown = lmzoo("show", "llama", "--match", "params=1M").out
    parameters = re.search(r"^parameters: +([\d,]+) ", shown, re.MULTILINE)
    assert parameters
    assert int(parameters[1].replace(",", "")) == pytest.approx(1e6, rel=0.02)
    assert re.search(
        r"^matched: +params=1M met to [+-]\d\.\d\d %; d_ff / d_model changed by a factor of \d", shown, re.M
    )
    assert "\nd_model = 144\n" in shown


def test_show_json_has_counts_settings_and_the_drawing(lmzoo: Command) -> None:
    shown = json.loads(lmzoo("show", "mamba.tiny", "--match", "flops=1M", "--json").out)
    assert shown["name"] == "mamba.tiny"
    assert shown["flops_per_token"] == shown["match"]["value"] == pytest.approx(1e6, rel=0.02)
    assert shown["drawing"]["model"]["cost"]["params"] == shown["parameters"]
    assert shown["model"]["n_layers"] == 3
    assert json.loads(lmzoo("show", "bigram", "--json").out)["match"] is None


def test_show_prints_one_thing(lmzoo: Command) -> None:
    for flags, message in (
        (["--settings", "--json"], "--json cannot be combined with --settings: --json alone prints all settings"),
        (["--open", "--json"], "--json cannot be combined with --open"),
        (["--settings", "--ops"], "--settings and --ops cannot be combined"),
    ):
        shown = lmzoo("show", "bigram", *flags)
        assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
        assert message in shown.err


def test_show_prints_the_facts_of_the_gallery(lmzoo: Command) -> None:
    shown = lmzoo("show", "mixtral.tiny").out
    assert "@misc{jiang2024mixtral," in shown
    assert re.search(r"^state by tokens: 24\.6 kB at 64, ", shown, re.MULTILINE), "of the preset that was asked for"
    assert re.search(r"^differs from: +llama \(\d+ lines removed, \d+ added\)", shown, re.MULTILINE)


def test_show_open_opens_the_page_of_the_family(lmzoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    shown = lmzoo("show", "bigram.tiny", "--open")
    assert opened == [Path(shown.out.strip()).as_uri()]
    assert Path(shown.out.strip()).name == "bigram.html"


@pytest.mark.parametrize("columns", [80, 140])
def test_show_draws_to_the_width_of_the_terminal(lmzoo: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = lmzoo("show", "gpt2.tiny").out.splitlines()
    assert max(len(line) for line in lines if line.startswith("+-")) == min(columns, 100)
    start = next(at for at, line in enumerate(lines) if line.startswith("measured by:"))
    assert lines[start + 1].startswith(" " * 17), "a long fact goes on below itself"
    facts = lines[start - 9 : start + 6]
    assert max(map(len, facts)) <= min(columns, 100)


def test_show_ops_measures_each_algorithm(lmzoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "LENGTHS", (1, 8))
    monkeypatch.setattr(cli_show, "QUIET_SECONDS", -1.0)
    small = ("--set", "d_model=8", "--set", "n_layers=1", "--ops")
    shown = lmzoo("show", "mamba", *small)
    assert re.search(r"^ +8 .* chunked_selective_scan +T >= 6", shown.out, re.MULTILINE)
    assert "measuring selective_scan, 8 tokens" in shown.err
    result = json.loads(lmzoo("show", "mamba", *small, "--json").out)
    assert [(entry["op"], entry["T"]) for entry in result["results"]] == [
        ("causal_conv1d", 1),
        ("causal_conv1d", 8),
        ("selective_scan", 1),
        ("selective_scan", 8),
    ]
    assert lmzoo("show", "bigram", "--ops").out == "bigram has no recurrence: there is nothing to choose\n"
