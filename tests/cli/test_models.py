"""Tests of `lmzoo list`, `show`, `check` and `completion`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import Command


def test_list_and_show_print_names_and_settings(lmzoo: Command) -> None:
    assert lmzoo("list", "gpt2.1*").out.split()[0] == "gpt2.1m"
    assert json.loads(lmzoo("list", "bigram*", "--json").out) == ["bigram", "bigram.tiny", "bigram.1m", "bigram.10m"]
    constant = json.loads(lmzoo("list", "--state", "constant", "--json").out)
    assert "mamba.tiny" in constant
    assert "gpt2" not in constant
    shown = lmzoo("show", "gpt2.124m", "--vocab-size", 50257)
    assert "124,439,808" in shown.out
    assert "n_layers = 12" in shown.out
    assert "\n+- 12 x ---" in shown.out, "the drawing"


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


@pytest.mark.parametrize("columns", [80, 140])
def test_show_draws_to_the_width_of_the_terminal(lmzoo: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = lmzoo("show", "gpt2.tiny").out.splitlines()
    assert max(len(line) for line in lines if line.startswith("+-")) == min(columns, 100)


def test_check_passes_a_right_model_and_fails_a_wrong_one(lmzoo: Command, tmp_path: Path) -> None:
    assert lmzoo("check", "bigram").code == 0
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
    result = lmzoo("check", wrong, "--json")
    report = json.loads(result.out)
    assert result.code == 1
    assert not report["passed"]
    assert any("causal" in name for name in report["failures"]), report["failures"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(lmzoo: Command, shell: str) -> None:
    assert "_LMZOO_COMPLETE" in lmzoo("completion", shell).out
