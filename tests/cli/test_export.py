"""Tests of `lmzoo export`: the directory works with transformers and with the other commands."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import lmzoo as zoo
from lmzoo.cli import export as module
from lmzoo.train import progress
from tests.cli.commands import Command


def test_export_writes_a_directory_for_transformers_and_commands(lmzoo: Command, run: Path) -> None:
    out = run.parent / "out"
    done = lmzoo("export", run, out)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"wrote {out}   model type gpt2, ")
    assert done.out.endswith(f" parameters, float32   try: lmzoo check {out}\n")
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ids = tokenizer("sheep went", return_tensors="pt").input_ids
    ours = zoo.load_model(run)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids).logits, atol=1e-5, rtol=0)
    texts = [lmzoo("sample", each, "--prompt", "9 sheep", "-n", 5, "--temperature", 0).out for each in (run, out)]
    assert texts[0] == texts[1]
    assert "| training steps | 4 |" in (out / "README.md").read_text()


def test_export_prints_json_and_takes_options(lmzoo: Command, run: Path) -> None:
    out = run.parent / "out"
    done = lmzoo("export", run, out, "--type", "lmzoo", "--dtype", "bfloat16", "--license", "mit", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    names = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert found["files"] == names == sorted(path.name for path in out.iterdir())
    assert (found["path"], found["model_type"], found["family"]) == (str(out), "lmzoo", "gpt2")
    assert (found["dtype"], found["left_out"]) == ("bfloat16", {})
    assert 'license: "mit"' in (out / "README.md").read_text()
    checked = lmzoo("check", out, "--only", "own_decoding")
    assert checked.code == 0, checked.out


def test_export_refuses_weights_that_are_not_numbers(lmzoo: Command, tmp_path: Path) -> None:
    model = zoo.create_model("bigram", vocab_size=9)
    with torch.no_grad():
        next(model.parameters())[3] = float("nan")
    model.save(tmp_path / "saved")
    done = lmzoo("export", tmp_path / "saved", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert re.search(r"out: \S+ holds values that are not finite: such a model is not exported$", done.err.strip())
    assert not (tmp_path / "out").exists()


def test_export_says_what_it_leaves_out(lmzoo: Command, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "n_layers": 1, "n_heads": 2, "balance_loss": 0.5}
    zoo.create_model("mixtral", vocab_size=9, **sizes).save(tmp_path / "saved")
    done = lmzoo("export", tmp_path / "saved", tmp_path / "out")
    assert done.err == "left out: balance_loss=0.5, which acts in training alone\n"
    assert "| `balance_loss` | 0.5 |" in (tmp_path / "out/README.md").read_text()


def test_export_shows_its_progress_if_it_takes_long(
    lmzoo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.create_model("bigram", vocab_size=9).save(tmp_path / "saved")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert lmzoo("export", tmp_path / "saved", tmp_path / "quick").err == ""
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    done = lmzoo("export", tmp_path / "saved", tmp_path / "out")
    assert re.search(r"^writing [\d,]+ of 324", done.err)
    assert "checking 324 of 324" in done.err


def test_export_refuses_in_one_line_and_writes_nothing(lmzoo: Command, tmp_path: Path) -> None:
    run, out = tmp_path / "gated", tmp_path / "out"
    zoo.create_model("llama", vocab_size=9, gate=True).save(run)
    for options, message in (
        ((run, out), "lmzoo: gate=True: no model type of transformers for llama (llama, mistral, "),
        ((run, out, "--type", "lama"), "lmzoo: type='lama' must be one of llama, mistral, "),
        ((run, run), f"lmzoo: {run}: exists and is no empty directory: it is left as it is"),
        ((run.parent / "missing", out), "there is no such run or checkpoint"),
    ):
        refused = lmzoo("export", *options)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert message in refused.err
    assert not out.exists()
