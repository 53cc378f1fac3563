"""Tests what is measured of a model: its costs, a speed and a sample with the first seed, the losses of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.compare import final_evaluation, measure, sample
from lmzoo.compare.budget import tokens_per_step
from lmzoo.compare.grid import CELL_FILE, make_cell, with_seed
from lmzoo.compare.measure import Measurer
from lmzoo.conformance import Report, Result
from lmzoo.data.corpora import load_corpus
from lmzoo.data.halves import validation_halves
from lmzoo.data.store import open_store
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.run import SAMPLE_FILE
from lmzoo.runs.saved import evaluate_run, load_run
from lmzoo.runs.spec import RunSpec
from lmzoo.train.carried import evaluate_carried
from lmzoo.train.evaluate import evaluate


@pytest.fixture
def measurer(text: Path) -> Measurer:
    corpus = load_corpus(str(text))
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    return Measurer(PreparedData(corpus, tokenizer), tokenizer.encode("The "), [], False)


def test_check_gives_the_costs_before_any_run(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec()
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    row = measurer.check(cell)
    model = spec.make_model(measurer.data.tokenizer.vocab_size)
    assert (row.name, row.status, row.run, row.loss, row.cells) == ("gpt2", "ranked", "runs/gpt2", None, ())
    assert (row.params, row.state_bytes) == (model.num_params(), model.state_bytes(model.config.context_length))
    assert row.tokens == 12 * 4 * model.config.context_length
    assert not cell.run.exists()
    assert set(row.checks.values()) == {True}
    assert {"causality", "decoding"} <= set(row.checks)
    leak = Report("gpt2", {}, (Result("loss", "loss", True, "", 0.0), Result("causality", "causality", False, "", 0.0)))
    monkeypatch.setattr(measure, "ranking_report", lambda name: leak)
    failed = measurer.check(cell)
    assert (failed.status, failed.checks) == ("failed", {"loss": True, "causality": False})
    assert failed.problem == "failed the checks causality; see lmzoo check gpt2"


def test_measure_gives_speed_and_sample_with_settings_only(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []
    monkeypatch.setattr(measure, "decode_tokens_per_s", lambda model: timed.append(model) or 5.0)
    spec = small_spec("bigram")
    first = make_cell(tmp_path, spec, spec, "bigram")
    second = make_cell(tmp_path, with_seed(spec, 7), spec, "bigram")
    row = measurer.check(first)
    found, other = measurer.measure(first, row.config), measurer.measure(second)
    assert len(timed) == 1
    assert found.more["decode_tokens_per_s"] == 5.0
    assert len(found.more["sample"]) == sample.SAMPLE_TOKENS
    assert found.more["config"]["train"]["seed"] == 1337
    assert other.more == {}
    assert not (first.run / SAMPLE_FILE).exists(), "the results have the sample"
    losses = [evaluate_run(tmp_path / cell.run).loss for cell in (found.cell, other.cell)]
    assert [found.cell.loss, other.cell.loss] == pytest.approx(losses, abs=1e-6)
    assert [found.cell.at_once, other.cell.at_once] == [1, 1]
    assert [[part["last"] for part in each.cell.by_position] for each in (found, other)] == [
        [1, 2, 4, 8, 16, 32, 64],
        [1, 2, 4, 8, 16],
    ]
    for parts in (found.cell.by_position[:5], found.cell.by_class[:3:2]):
        total = sum(part["loss"] * part["tokens"] for part in parts) / sum(part["tokens"] for part in parts)
        assert total == pytest.approx(found.cell.loss, abs=1e-5)
    assert measurer.add_speeds(first, found) is found, "nothing is measured twice"
    assert measurer.kept(first) == measurer.measure(first, row.config) == found


def test_add_speeds_measures_what_several_runs_at_once_leave_out(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    several = dataclasses.replace(measurer, at_once=2)
    spec = small_spec()
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    found = several.measure(cell, measurer.check(cell).config)
    assert found.cell.at_once == 2
    assert found.more.keys() == {"config", "sample"}
    with_speeds = several.add_speeds(cell, found)
    assert with_speeds.more["decode_tokens_per_s"] > 0
    assert with_speeds.more["train_tokens_per_s"] > 0
    assert several.kept(cell) == with_speeds, "kept for the next call"


def test_add_speeds_counts_the_targets_of_isolated_documents(
    documents: str, small_spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = load_corpus(documents)
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    store = open_store(corpus, tokenizer, documents="isolated")
    several = Measurer(PreparedData(corpus, tokenizer, store), tokenizer.encode("The "), [], False, at_once=2)
    monkeypatch.setattr(measure, "step_seconds", lambda *given: 2.0)
    spec = dataclasses.replace(small_spec(documents="isolated", steps=2), data=documents)
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    found = several.add_speeds(cell, several.measure(cell)).more["train_tokens_per_s"]
    assert found == tokens_per_step(spec, tokenizer.vocab_size, store.train) / 2.0
    assert found < 4 * 16 / 2.0, "without padding"


@pytest.mark.parametrize("tuned", [False, True])
def test_measure_evaluates_with_the_stride_on_the_reported_text(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path, tuned: bool
) -> None:
    halves = validation_halves(measurer.data.corpus, measurer.data.tokenizer) if tuned else None
    spec = small_spec(steps=2)
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    losses = {}
    for stride in (None, 4):
        strided = dataclasses.replace(measurer, stride=stride, halves=halves)
        found = strided.measure(cell, {}).cell
        model = load_run(cell.run).model
        val = open_store(measurer.data.corpus, measurer.data.tokenizer).val
        expected = evaluate(model, val if halves is None else halves[1].split, stride=stride)
        assert found.loss == pytest.approx(expected.loss, abs=1e-5)
        assert found.bits_per_byte == pytest.approx(expected.bits_per_byte, abs=1e-5)
        if halves is not None:
            assert found.selection_loss == evaluate(model, halves[0].split, stride=stride).loss
        losses[stride] = found.loss
    assert abs(losses[4] - losses[None]) > 1e-4, "measured anew: the kept result is of another stride"


@pytest.mark.parametrize("tuned", [False, True])
def test_measure_carries_the_context(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path, tuned: bool
) -> None:
    halves = validation_halves(measurer.data.corpus, measurer.data.tokenizer) if tuned else None
    measurer = dataclasses.replace(measurer, halves=halves)
    spec = small_spec("lstm", steps=2, d_model=8)
    cell = make_cell(tmp_path, spec, spec, "lstm")
    reset = measurer.measure(cell, {}).cell
    found = dataclasses.replace(measurer, context="carried").measure(cell, {}).cell
    model = load_run(cell.run).model
    val = open_store(measurer.data.corpus, measurer.data.tokenizer).val if halves is None else halves[1].split
    assert found.loss == evaluate_carried(model, val).loss
    assert found.bits_per_byte == evaluate_carried(model, val).bits_per_byte
    assert abs(found.loss - reset.loss) > 1e-4, "measured anew: the kept result is of another context"
    assert found.by_position == reset.by_position
    assert found.by_class != reset.by_class
    if halves is not None:
        assert found.selection_loss == evaluate_carried(model, halves[0].split).loss
    assert measurer.measure(cell, {}).cell.loss == pytest.approx(reset.loss, abs=1e-6)


class Exploding(LanguageModel):
    """A sum that grows eightfold with each token: harmless in 16 tokens, infinite in float32 after 43."""

    family = "exploding"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 8)
        self.head = nn.Linear(8, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, state_growth="constant")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch_size, 8)

    def features(self, idx_BT: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x_BTD = self.embedding(idx_BT)
        sum_BD = torch.zeros_like(x_BTD[:, 0]) if state is None else state
        sums = []
        for x_BD in x_BTD.unbind(1):
            sum_BD = 8 * sum_BD + x_BD.detach()
            sums.append(sum_BD)
        return x_BTD + 1e-20 * torch.stack(sums, 1), None if state is None else sum_BD


@pytest.mark.parametrize("tuned", [False, True])
def test_measure_calls_a_final_loss_that_is_not_finite_diverged(
    measurer: Measurer,
    small_spec: Callable[..., RunSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tuned: bool,
) -> None:
    monkeypatch.setitem(registry._classes, "exploding", Exploding)
    halves = validation_halves(measurer.data.corpus, measurer.data.tokenizer) if tuned else None
    carried = dataclasses.replace(measurer, context="carried", halves=halves, at_once=2)
    spec = small_spec("exploding", steps=2)
    cell = make_cell(tmp_path, spec, spec, "exploding")
    found = carried.measure(cell)
    assert found.cell.status == "diverged"
    assert found.cell.problem == "the validation loss of the final evaluation is nan"
    assert (found.cell.loss, found.cell.bits_per_byte, found.cell.by_class) == (None, None, ())
    assert (found.cell.curve[-1][0], found.cell.at_once) == (2 * 4 * 16, 2)
    kept = carried.kept(cell)
    assert kept is not None
    assert kept.cell.problem == found.cell.problem, "it is not measured again when the comparison goes on"
    assert carried.measure(cell, {}).cell.status == "diverged", "neither a sample nor a speed is measured"


def test_measure_takes_the_loss_that_chose_from_the_search(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = dataclasses.replace(measurer, halves=validation_halves(measurer.data.corpus, measurer.data.tokenizer))
    spec = small_spec()
    cell, other = (make_cell(tmp_path, with_seed(spec, seed), spec, "gpt2") for seed in (1337, 7))
    trial = tuned.measure_part(cell, 12).cell
    assert trial.selection_loss is not None
    monkeypatch.setattr(measure, "evaluate_text", lambda *given, **more: pytest.fail("it is known"))
    assert tuned.measure(cell, {}).cell.selection_loss == trial.selection_loss
    assert tuned.measure(other).cell.selection_loss is None, "nothing is chosen by further seeds"


@pytest.mark.parametrize("tuned", [False, True])
def test_measure_reads_the_reported_text_once(
    measurer: Measurer,
    small_spec: Callable[..., RunSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tuned: bool,
) -> None:
    halves = validation_halves(measurer.data.corpus, measurer.data.tokenizer) if tuned else None
    measurer = dataclasses.replace(measurer, halves=halves)
    read: list[object] = []
    plain = final_evaluation.token_losses
    monkeypatch.setattr(
        final_evaluation, "token_losses", lambda *given, **more: read.append(0) or plain(*given, **more)
    )
    spec = small_spec(steps=2)
    cell = make_cell(tmp_path, spec, spec, "gpt2")
    found = measurer.measure(cell)
    assert read == [], "the evaluation after the last step gives all losses"
    (cell.run / CELL_FILE).unlink()
    assert measurer.measure(cell) == found
    assert len(read) == 1, "the run is finished: it is not evaluated again"
    expected = evaluate_run(cell.run) if halves is None else evaluate(load_run(cell.run).model, halves[1].split)
    assert found.cell.loss == pytest.approx(expected.loss, abs=1e-6)
    assert found.cell.curve[-1][1] == found.cell.loss, "the curve is of the same text"


def test_time_measures_what_a_model_costs(
    measurer: Measurer, small_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    data = dataclasses.replace(measurer.data, store=open_store(measurer.data.corpus, measurer.data.tokenizer))
    spec = small_spec("bigram")
    cost = dataclasses.replace(measurer, data=data).time(make_cell(tmp_path, spec, spec, "bigram"))
    assert min(cost.step, cost.eval_token, cost.new_token) > 0
    assert not any(tmp_path.iterdir())
