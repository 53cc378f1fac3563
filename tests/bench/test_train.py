"""Tests the measurement of training speed: complete and plausible results."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch

import lmzoo
from lmzoo.bench import bench_train
from lmzoo.bench import train as training
from lmzoo.bench.steps import PHASES
from lmzoo.bench.train import in_blocks, median_error
from lmzoo.errors import InputError
from lmzoo.hardware import matrix_rate
from lmzoo.model import LanguageModel
from lmzoo.train.config import TrainConfig

QUICK = TrainConfig(batch_size=2, grad_clip=1.0)


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return lmzoo.create_model("gpt2", vocab_size=65, d_model=32, n_layers=1, context_length=16)


@pytest.fixture(autouse=True)
def quick_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the product of a smaller matrix: the real one takes a second."""
    monkeypatch.setattr(training, "SQUARE", (64, 64, 64))


def test_bench_train_measures_a_tiny_model(model: LanguageModel) -> None:
    def sleeper(steps: int) -> float:
        time.sleep(0.02 * steps)
        return 0.02 * steps

    result = bench_train(model, QUICK, repeats=2, block_seconds=0.01, peers={"sleeper": sleeper})
    json.dumps(result)  # plain values alone
    entries = {entry["name"]: entry for entry in result["results"]}
    assert list(entries) == ["float32", "bf16", "sleeper"]
    assert result["flops_per_step"] == 3 * 32 * model.flops_per_token(16)
    for name, entry in entries.items():
        assert entry["tokens_per_s"] == pytest.approx(32 / (entry["ms_per_step"] / 1e3))
        if name != "sleeper":
            assert tuple(entry["phases"]) == PHASES
            assert sum(entry["phases"].values()) == pytest.approx(1)
            assert all(share > 0 for share in entry["phases"].values())
            rate = result["matrix_flops_per_s"][name]
            assert entry["utilisation"] == pytest.approx(entry["flops_per_s"] / rate)
            assert entry["peak_bytes"] is None or entry["peak_bytes"] > 3 * 4 * model.num_params()
    assert entries["sleeper"]["ms_per_step"] == pytest.approx(20)
    assert "phases" not in entries["sleeper"]
    assert result["auto"] in ("float32", "bf16")


def test_bench_train_restores_stdout_when_a_step_fails(model: LanguageModel) -> None:
    """The progress bar redirects stdout while it is drawn; an error message printed afterwards must be visible."""
    before = sys.stdout

    def broken(steps: int) -> float:
        raise RuntimeError("a peer failed")

    with pytest.raises(RuntimeError, match="a peer failed"):
        bench_train(model, QUICK, precisions=["float32"], repeats=1, block_seconds=0.01, peers={"broken": broken})
    assert sys.stdout is before


def test_in_blocks_times_all_works_in_turn_in_blocks_of_one_length() -> None:
    calls: list[tuple[str, int]] = []

    def work(name: str, seconds: float) -> object:
        def take(steps: int) -> float:
            calls.append((name, steps))
            return seconds * steps

        return take

    spent = in_blocks({"a": work("a", 0.01), "b": work("b", 0.5)}, repeats=2, seconds=0.1)
    assert calls == [("a", 1)] * 2 + [("b", 1)] * 2 + [("a", 10), ("b", 1), ("b", 1), ("a", 10)]
    assert spent == {"a": pytest.approx([0.01] * 2), "b": [0.5] * 2}


def test_median_error_is_the_deviation_of_many_medians() -> None:
    samples = torch.randn(2000, 31, generator=torch.Generator().manual_seed(1)) * 0.05 + 1.02
    spread = samples.median(dim=1).values.std().item()
    errors = [median_error(sample) for sample in samples.tolist()]
    assert sum(error for error in errors if error is not None) / 2000 == pytest.approx(spread, rel=0.1)
    assert median_error([1.0, 1.1, 0.9]) is None, "three values are too few"


def test_matrix_rates_tries_the_largest_matrix_of_the_model(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, int, int], ...]] = []

    def note(dtype: torch.dtype, *shapes: tuple[int, int, int], device: torch.device | None = None) -> float:
        asked.append(shapes)
        return matrix_rate(dtype, (4, 4, 4), repeats=1)

    monkeypatch.setattr(training, "matrix_rate", note)
    training.matrix_rates(model, 32, ["float32"])
    assert asked == [((64, 64, 64), (32, 32, 128))]


def test_bench_train_refuses_a_model_without_training_steps() -> None:
    with pytest.raises(InputError, match="ngram is fitted in one pass, not trained"):
        bench_train(lmzoo.create_model("ngram", vocab_size=65), QUICK)
