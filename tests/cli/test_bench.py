"""Tests of `lmzoo bench`."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from lmzoo import bench
from lmzoo.bench import train as training
from lmzoo.cli import cli


def test_bench_decode_prints_text_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {**bench.bench_decode.__kwdefaults__, "bandwidth_bytes": 1 << 20}  # a gigabyte is too much for a test
    monkeypatch.setattr(bench.bench_decode, "__kwdefaults__", defaults)
    threads = torch.get_num_threads()
    arguments = [
        "bench",
        "decode",
        "gpt2.tiny",
        "--tokens",
        "2",
        "--repeats",
        "1",
        "--threads",
        str(threads),
        "--no-compiled",
    ]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "of bandwidth" in done.output
    done = CliRunner().invoke(cli, [*arguments, "--json", "--set", "vocab_size=7"])
    assert json.loads(done.output)["target"] == "gpt2.tiny"


def test_bench_loss_prints_json_and_a_table() -> None:
    arguments = ["bench", "loss", "--vocab-size", "50", "--tokens", "16", "--d-model", "8", "--repeats", "1"]
    arguments += ["--threads", str(torch.get_num_threads())]
    result = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert list(result["results"]) == ["float32", "bf16"]
    for found in result["results"].values():
        assert found["time_ratio"] == pytest.approx(found["seconds"]["chunked"] / found["seconds"]["plain"])
    shown = CliRunner().invoke(cli, arguments).output
    assert "50 tokens, 16 positions, 8 wide" in shown
    assert "bf16 chunked" in shown


@pytest.fixture
def quick_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the product of a smaller matrix, and shorter blocks of steps: the real ones take seconds."""
    monkeypatch.setattr(training, "SQUARE", (64, 64, 64))
    defaults = {**training.bench_train.__kwdefaults__, "block_seconds": 0.02}
    monkeypatch.setattr(training.bench_train, "__kwdefaults__", defaults)


@pytest.mark.usefixtures("quick_rate")
def test_bench_train_prints_json_and_tables() -> None:
    arguments = ["bench", "train", "gpt2.tiny", "--repeats", "1", "--threads", str(torch.get_num_threads())]
    arguments += ["--batch-size", "2", "--set", "n_layers=1", "--set", "context_length=8", "--json"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.output)
    assert (result["target"], result["batch_size"], result["context_length"]) == ("gpt2.tiny", 2, 8)
    assert [entry["name"] for entry in result["results"]] == ["float32", "bf16"]
    shown = CliRunner().invoke(cli, arguments[:-1]).output
    assert "2 x 8 tokens a step" in shown
    assert "utilisation" in shown
