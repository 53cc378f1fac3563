"""The trainer's parts: evaluation, precision, progress and loggers."""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

import lmzoo
from lmzoo.data import load_corpus, open_store, train_tokenizer
from lmzoo.data.store import TokenSplit
from lmzoo.model import LanguageModel
from lmzoo.runs.metrics import MetricsWriter, read_metrics
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.train import precision, progress
from lmzoo.train.config import TrainConfig
from lmzoo.train.evaluate import evaluate
from lmzoo.train.events import EndEvent, EvalEvent, StartEvent, StepEvent
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.progress import ProgressBar


@pytest.fixture
def split(text: Path) -> TokenSplit:
    corpus = load_corpus(str(text))
    return open_store(corpus, train_tokenizer("char", corpus.chunks("train"))).val


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(3)
    vocab = 40
    shape = {"d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 16}
    return lmzoo.create_model("gpt2", vocab_size=vocab, dropout=0.5, **shape)


def test_evaluate_counts_every_target_once(model: LanguageModel, split: TokenSplit) -> None:
    ids = torch.from_numpy(split.tokens.astype("int64"))
    model.eval()
    total = 0.0
    for start in range(0, len(ids) - 1, 16):
        piece = ids[start : start + 17]
        total += model(piece[None, :-1], piece[None, 1:]).loss.item() * (len(piece) - 1)
    model.train()
    result = evaluate(model, split, batch_size=3)
    assert model.training
    assert result.tokens == len(ids) - 1
    assert result.loss == pytest.approx(total / (len(ids) - 1), abs=1e-6)
    assert result.bits_per_byte == pytest.approx(result.loss / math.log(2))
    assert evaluate(model, split, batch_size=64).loss == pytest.approx(result.loss, abs=1e-6)


def test_evaluate_a_part(model: LanguageModel, split: TokenSplit) -> None:
    assert evaluate(model, split, tokens=100).tokens == 100


def test_auto_precision_follows_size_and_machine(model: LanguageModel) -> None:
    wide = lmzoo.create_model("gpt2", vocab_size=65, d_model=256, n_layers=1, context_length=64)
    assert precision.resolve_precision("auto", model, 16) == "float32"
    assert precision.resolve_precision("auto", wide, 1) == "float32"
    multiplies_bf16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    assert precision.resolve_precision("auto", wide, 16) == ("bf16" if multiplies_bf16 else "float32")
    assert precision.resolve_precision("bf16", model, 1) == "bf16"
    assert precision.resolve_precision("auto", lmzoo.create_model("bigram", vocab_size=9), 999) == "float32"


def test_bf16_trains_weights_that_stay_float32(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    whole = train_run(small_spec(), tmp_path / "float32").loss
    half = train_run(small_spec(precision="bf16"), tmp_path / "bf16").loss
    assert half != whole
    assert half == pytest.approx(whole, abs=0.02)
    assert lmzoo.load_model(tmp_path / "bf16").dtype == torch.float32


def test_only_matrices_and_embeddings_are_decayed(model: LanguageModel) -> None:
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.25))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        name: 0.25 if p.ndim > 1 else 0.0 for name, p in model.named_parameters()
    }


def test_metrics_drop_what_comes_after_the_resumed_step(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 1)
    for step in (1, 2, 3):
        writer(StepEvent(step, 1.0 / step, 0.1, 1.0, step * 10, 0.5, 20.0))
    writer(EvalEvent(3, 0.25, 0.5, 30, 0.5))
    writer(EndEvent())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')  # cut short by a kill
    writer = MetricsWriter(tmp_path, 1, after_step=2)
    writer(StepEvent(3, 0.125, 0.1, 1.0, 30, 0.5, 20.0))
    writer(EndEvent())
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 0.125)]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["split"] == "train"


def test_progress_shows_the_run(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    output = io.StringIO()
    with ProgressBar(Console(file=output, width=160, force_terminal=False)) as bar:
        train_run(small_spec(), tmp_path / "run", listeners=[bar])
    text = output.getvalue()
    assert "gpt2: " in text
    assert "64 tokens a step, float32 on cpu" in text
    assert re.search(r"loss \d\.\d{4}  [\d,]+ tokens/s  \d+% of peak", text), text
    assert "step 8: validation " in text
    assert "12/12" in text
    assert "saved in" in text


def test_utilisation_is_the_runs_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 tokens/s at 3 MFLOPs each, of 10 GFLOPs/s; and a machine that cannot be measured is not guessed at."""
    for rate, shown in ((10e9, "30% of peak"), (None, "utilisation n/a")):
        monkeypatch.setattr(progress, "_best_rate", lambda precision, device, rate=rate: rate)
        output = io.StringIO()
        with ProgressBar(Console(file=output, width=80, force_terminal=False)) as bar:
            bar(StartEvent("gpt2.124m", 1, 0, 20000, 50, "float32", "cpu", Path("runs/x"), 150e6))
            bar(StepEvent(12000, 10.8249, 0.1, 1.0, 100, 0.1, 1000.0))
        assert shown in output.getvalue()
        assert "12000/20000" in output.getvalue()
        assert "tokens/s" in output.getvalue()


@pytest.mark.timing
def test_the_best_rate_is_found_quickly() -> None:
    began = time.perf_counter()
    assert 1e8 < (progress._best_rate("float32", "cpu") or 0) < 1e14
    assert time.perf_counter() - began < 2  # 0.1 s on a quiet machine
