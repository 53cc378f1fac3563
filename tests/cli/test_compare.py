"""Tests of `lmzoo compare`: the table, JSON, and a file in the place of a name."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import QUICK, Command

MODEL = """
import lmzoo
from lmzoo.backbones.bigram import Bigram

@lmzoo.register_model("compared")
class Compared(Bigram):
    pass
"""


def test_compare_prints_the_table_or_json(lmzoo: Command, text: Path) -> None:
    plugin = text.parent / "compared.py"
    plugin.write_text(MODEL)
    command = ["compare", "bigram.tiny", plugin, "--data", text, "--out", text.parent / "out", *QUICK]
    result = lmzoo(*command)
    assert result.code == 0, result.err
    assert result.out.startswith("sheep.txt, tokenizer char: 4 steps")
    assert "compared" in result.out
    assert "checking" not in result.out, "progress goes to stderr"
    assert "compared (2 of 2): checking" in result.err
    tables = json.loads(lmzoo(*command, "--json").out)
    assert {row["name"] for row in tables["models"]} == {"bigram.tiny", "compared"}


def test_compare_takes_seeds(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "out", "--seeds", 2, "--workers", 1, *QUICK]
    result = lmzoo(*command)
    assert result.code == 0, result.err
    assert "seeds 1337 to 1338" in result.out
    assert "A changed seed alone moves the loss of a model by" in result.out
    assert "bigram with seed 1338 (2 of 2): training" in result.err
    tables = json.loads(lmzoo(*command, "--json").out)
    assert tables["seeds"] == [1337, 1338]
    assert tables["statistics"]["means"]["bigram"]["low"] < tables["models"][0]["loss"]
    refused = lmzoo("compare", "bigram", "--data", text, "--out", text.parent / "new", "--seeds", 0)
    assert refused.code == 2
    assert len(refused.err.strip().splitlines()) == 1
    assert not (text.parent / "new").exists()


def test_compare_takes_a_stride(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "out", *QUICK]
    result = lmzoo(*command, "--stride", 16)
    assert result.code == 0, result.err
    assert "tokens that start 16 tokens apart" in " ".join(result.out.split())
    for bad in (0, 10**6):
        refused = lmzoo("compare", "bigram", "--data", text, "--out", text.parent / "new", *QUICK, "--stride", bad)
        assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1), refused.err
    assert not (text.parent / "new").exists()


def test_compare_carries_the_context(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "out", *QUICK, "--context", "carried"]
    result = lmzoo(*command)
    assert result.code == 0, result.err
    assert "the context is carried from window to window" in " ".join(result.out.split())
    assert "States of constant size: bigram (0 B)." in " ".join(result.out.split())
    refused = lmzoo("compare", "gpt2", "--data", text, "--out", text.parent / "new", *QUICK, "--context", "carried")
    assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1), refused.err
    assert not (text.parent / "new").exists()


def test_compare_takes_a_budget_and_a_size(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "lstm.tiny", "--data", text, "--out", text.parent / "out", "--set", "batch_size=4"]
    result = lmzoo(*command, "--match", "params=20k", "--budget", "tokens=1k")
    assert result.code == 0, result.err
    assert "3 steps of 4 x 64 tokens for every model" in result.out
    assert "Sizes are matched to 20.0 k parameters: bigram " in result.out
    for bad in (["--budget", "tokens=9"], ["--budget", "9"], ["--match", "params=1"], ["--budget", "steps=1", *QUICK]):
        refused = lmzoo(*command[:-4], "--out", text.parent / "new", *bad)
        assert refused.code == 2
        assert len(refused.err.strip().splitlines()) == 1
    assert not (text.parent / "new").exists()


def test_compare_takes_a_setting_to_tune(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "out", *QUICK]
    result = lmzoo(*command, "--tune", "learning_rate=0.01,0.1", "--workers", 1)
    assert result.code == 0, result.err
    assert "The learning rate of each model was chosen with equal effort: 2 values for all" in " ".join(
        result.out.split()
    )
    assert "bigram: training with learning_rate=0.01" in result.err
    refused = lmzoo(*command[:-6], "--out", text.parent / "new", "--tune", "learning")
    assert refused.code == 2
    assert len(refused.err.strip().splitlines()) == 1
    assert not (text.parent / "new").exists()


def test_compare_takes_several_settings_and_halves_their_search(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "out", *QUICK, "--workers", 1]
    tune = ["--tune", "learning_rate=0.01,0.1,0.3", "--tune", "warmup_steps=0,1"]
    result = lmzoo(*command, *tune, "--halving")
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    assert "The learning rate, then the warm-up steps of each model were chosen with equal effort: 3, then 2" in shown
    assert "Successive halving: after 25 % and 50 % of the steps the better half of the runs went on." in shown
    assert "bigram: training with learning_rate=0.01,warmup_steps=0 up to step 1" in result.err
    tuning = json.loads(lmzoo(*command, *tune, "--halving", "--json").out)["tuning"]
    assert tuning["then"][0]["setting"] == "warmup_steps"
    assert tuning["halving"]["saved_tokens"] > 0
    for bad in (
        ["--halving"],
        ["--tune", "min_learning_rate", "--halving"],
        ["--tune", "learning_rate", "--tune", "learning_rate=1,2"],
        ["--tune", "min_learning_rate=0,0.1"],
        ["--tune", "warmup_steps"],
        ["--tune", "warmup_steps=1,9"],
        ["--tune", "warmup_steps=0,1", "--set", "warmup_steps=1"],
        ["--tune", "min_learning_rate", "--set", "schedule=constant"],
    ):
        refused = lmzoo(*command[:5], text.parent / "new", *command[6:], *bad)
        assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1), refused.err
    assert not (text.parent / "new").exists()


def test_compare_takes_probes(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "out", *QUICK]
    probes = ["--probes", "parity,s3", "--difficulty", "easy", "--probe-steps", 2]
    result = lmzoo(*command, *probes)
    assert result.code == 0, result.err
    assert "parity easy" in result.out
    assert "2 steps of 64 sequences" in " ".join(result.out.split())
    found = json.loads(lmzoo(*command, *probes, "--json").out)["probes"]
    assert [level["probe"] for level in found["levels"]] == ["parity", "s3"]
    assert 0 < found["cells"][0]["accuracy_trained"] < 1
    for bad in (["--probes", "parrity"], ["--difficulty", "easy"], ["--probes", "parity", "--probe-steps", 0]):
        refused = lmzoo(*command[:5], text.parent / "new", *QUICK, *bad)
        assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1), refused.err
    assert not (text.parent / "new").exists()


def test_compare_takes_sizes(lmzoo: Command, text: Path) -> None:
    command = ["compare", "mlp", "--data", text, "--out", text.parent / "out", *QUICK, "--sizes", "2k,4k,8k"]
    result = lmzoo(*command)
    assert result.code == 0, result.err
    assert result.out.split()[:4] == ["model", "2.00", "k", "4.00"]
    assert "it says nothing outside of the measured range" in " ".join(result.out.split()).lower()
    assert json.loads(lmzoo(*command, "--json").out)["sizes"] == [2000, 4000, 8000]
    for bad in (["--sizes", "2k,4k"], ["--sizes", "2k,4k,8k", "--match", "params=2k"], ["--optimizers", "adamw,muon"]):
        refused = lmzoo("compare", "mlp", "--data", text, "--out", text.parent / "new", *QUICK, *bad)
        assert (refused.code, len(refused.err.strip().splitlines())) == (2, 1), refused.err
    assert not (text.parent / "new").exists()


def test_compare_takes_workers_and_an_engine(lmzoo: Command, text: Path) -> None:
    command = ["compare", "bigram", "--data", text, "--out", text.parent / "new", *QUICK]
    for bad in (["--workers", 0], ["--workers", "x"], ["--engine", "rya"]):
        refused = lmzoo(*command, *bad)
        assert refused.code == 2
        assert len(refused.err.strip().splitlines()) == 1
    assert not (text.parent / "new").exists()
