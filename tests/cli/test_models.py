"""Tests of `lmzoo list` and `check`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import lmzoo as library
from lmzoo import registry
from lmzoo.conformance import coordinates
from lmzoo.model import StateGrowth
from tests.cli.commands import Command


def test_list_prints_families_without_importing_torch(lmzoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = lmzoo("list").out.splitlines()
    assert lines[0].split() == ["kind", "family", "year", "state", "beyond", "context", "summary"]
    rows = [line.split() for line in lines[2:]]
    assert ["attention", "gpt2", "2019", "linear", "no"] in [row[:5] for row in rows]
    order = ["classic", "attention", "linear", "hybrid"]
    kinds = [row[0] for row in rows if row[0] in order]  # families of plug-ins may have no kind
    assert kinds == sorted(kinds, key=order.index)
    attention = [row[2] for row in rows if row[0] == "attention"]
    assert attention == sorted(attention), "by year"
    words = "import sys, lmzoo.cli as c; c.cli.main(['list'], standalone_mode=False); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", words], check=True, capture_output=True)


def test_list_prints_the_presets_of_a_family_with_their_sizes(lmzoo: Command) -> None:
    result = lmzoo("list", "gpt2")
    rows = {line.split()[0]: line for line in result.out.splitlines()[2:]}
    assert list(rows) == ["gpt2", "gpt2.shakespeare-fast", "gpt2.tiny", "gpt2.1m", "gpt2.10m", "gpt2.124m"]
    assert re.match(r"gpt2\.124m +124 M +1,024 ", rows["gpt2.124m"])
    assert "the smallest model of the GPT-2 paper" in rows["gpt2.124m"]
    assert [line.split()[0] for line in lmzoo("list", "gpt2.1*").out.splitlines()[2:]] == [*rows][3:]


@pytest.mark.parametrize("columns", [30, 50, 80, 140])
@pytest.mark.parametrize("pattern", ["*", "mamba"])
def test_list_fits_the_terminal(lmzoo: Command, monkeypatch: pytest.MonkeyPatch, columns: int, pattern: str) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = lmzoo("list", pattern).out
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text


def test_list_json_prints_names(lmzoo: Command) -> None:
    names = ["bigram", "bigram.tiny", "bigram.1m", "bigram.10m"]
    for pattern in ("bigram", "bigram*"):
        assert json.loads(lmzoo("list", pattern, "--json").out) == names
    constant = json.loads(lmzoo("list", "--state", "constant", "--json").out)
    assert "mamba.tiny" in constant
    assert "gpt2" not in constant


@pytest.mark.parametrize("growth", get_args(StateGrowth))
def test_list_chooses_families_by_every_growth_of_their_state(lmzoo: Command, growth: str) -> None:
    expected = [name for name, family in registry.families().items() if family.facts.get("state_growth") == growth]
    assert expected
    assert {*expected} <= {*json.loads(lmzoo("list", "--state", growth, "--json").out)}


def test_check_passes_a_right_model_and_fails_a_wrong_one(lmzoo: Command, tmp_path: Path) -> None:
    assert lmzoo("check", "bigram", "--only", "causality").code == 0
    wrong = tmp_path / "peeks.py"
    wrong.write_text(
        "from torch import nn\nimport lmzoo\n"
        "@lmzoo.register_model('peeks')\n"
        "class Peeks(lmzoo.LanguageModel):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.table = nn.Embedding(config.vocab_size, 8)\n"
        "        self.head = nn.Linear(8, config.vocab_size)\n"
        "    def features(self, idx_BT, state=None):\n"
        "        x_BTD = self.table(idx_BT)\n"
        "        return x_BTD + x_BTD.roll(-1, dims=1), state\n"
    )
    result = lmzoo("check", wrong, "--json", "--only", "causality")
    report = json.loads(result.out)
    assert result.code == 1
    assert not report["passed"]
    assert report["failures"] == ["causality"]


def test_check_names_each_run(lmzoo: Command, tmp_path: Path) -> None:
    for name in ("first", "sec\x1bond"):
        library.create_model("bigram", vocab_size=11).save(tmp_path / name)
    result = lmzoo("check", tmp_path / "first", tmp_path / "sec\x1bond", "--only", "shapes")
    titles = [line for line in result.out.splitlines() if line.startswith("bigram (")]
    assert titles == [f"bigram ({tmp_path}/first)", rf"bigram ({tmp_path}/sec\x1bond)"]


def test_check_coord_prints_activations_by_role(lmzoo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinates.coordinate_check, "__defaults__", ((16, 32),))
    shown = lmzoo("check", "mamba.tiny", "--coord")
    assert shown.code == 0
    assert re.search(r"^logits +after 4 steps +[\d.e-]+ +[\d.e-]+ +[+-]\d\.\d\d$", shown.out, re.MULTILINE)
    assert json.loads(lmzoo("check", "mamba.tiny", "--coord", "--json").out)["widths"] == [16, 32]
    assert lmzoo("check", "bigram", "--coord").err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "causality", "--json"], "--explain prints a text: leave out --json"),
        (["mlp", "--coord", "--only", "shapes"], "--coord runs no checks: leave out --only"),
    ],
)
def test_check_refuses_options_without_effect(lmzoo: Command, arguments: list[str], message: str) -> None:
    result = lmzoo("check", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err


@pytest.mark.parametrize("command", ["check", "show", "compare"])
def test_a_path_is_not_taken_for_an_unknown_model(lmzoo: Command, command: str) -> None:
    result = lmzoo(command, "runs/absent")
    assert (result.code, result.err) == (2, "lmzoo: 'runs/absent' is neither the name of a model nor a run\n")


def test_check_coord_without_a_name_takes_the_families_that_have_a_width(
    lmzoo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinates.coordinate_check, "__defaults__", ((16, 32),))
    some = {name: family for name, family in registry.families().items() if name in ("bigram", "mlp", "ngram", "rnn")}
    monkeypatch.setattr(registry, "families", lambda: some)
    assert [found["name"] for found in json.loads(lmzoo("check", "--coord", "--json").out)] == ["mlp", "rnn"]
