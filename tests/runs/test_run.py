"""Tests runs from end to end: files, events, and one clear line for all input that cannot be used."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Generator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lmzoo.backbones.ngram import NGramModel
from lmzoo.compare.ngram import NGram
from lmzoo.data import load_corpus, open_store
from lmzoo.data.batches import BatchStream
from lmzoo.data.store import TokenSplit
from lmzoo.errors import CheckpointError, ConfigError, DataError, DivergedError, InputError, LmzooError
from lmzoo.model import LanguageModel, Traits
from lmzoo.runs import validation
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import RunSpec, evaluate_run, load_run, make_spec, train_part, train_run
from lmzoo.storage import checkpoints
from lmzoo.train.evaluate import EvalResult, evaluate
from lmzoo.train.events import CheckpointEvent, EndEvent, EvalEvent, Event, StartEvent, StepEvent
from tests.helpers import SHORT_SAMPLE, TEXT, assert_same, tensors

MakeSpec = Callable[..., RunSpec]


@pytest.mark.usefixtures("full_samples")
def test_train_run_writes_files_and_sends_events(tmp_path: Path, small_spec: MakeSpec, text: Path) -> None:
    run, events = tmp_path / "run", list[Event]()
    before = torch.get_rng_state()
    result = train_run(small_spec(log_every=2, eval_every=6), run, listeners=[events.append])
    assert torch.equal(torch.get_rng_state(), before)

    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
        "sample.txt",
        "tokenizer.json",
        "validation.safetensors",
    ]
    assert sorted(path.name for path in checkpoints.path_of(run, 12).iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "training.json",
    ]
    tables = tomllib.loads((run / "config.toml").read_text())
    assert tables["model"]["name"] == "gpt2"
    assert tables["model"]["vocab_size"] == len(set(TEXT))
    assert tables["train"]["steps"] == 12
    assert tables["data"]["data"] == str(text)
    assert tables["machine"]["precision"] == "float32"
    assert len((run / "sample.txt").read_text()) == 501

    lines = read_metrics(run)
    assert [(line["step"], line["split"]) for line in lines] == [
        *[(2, "train"), (4, "train"), (6, "train"), (6, "val")],
        *[(8, "train"), (10, "train"), (12, "train"), (12, "val")],
    ]
    assert all({"step", "split", "loss", "tokens", "seconds"} <= line.keys() for line in lines)
    assert lines[-1]["tokens"] == 12 * 4 * 16 == result.tokens
    assert lines[-1]["bits_per_byte"] == pytest.approx(lines[-1]["loss"] / math.log(2))  # char, and the text is ASCII
    assert (result.loss, result.bits_per_byte) == (lines[-1]["loss"], lines[-1]["bits_per_byte"])
    assert result.loss < math.log(len(set(TEXT)))

    told = Counter(type(event) for event in events)
    assert (told[StartEvent], told[StepEvent], told[EvalEvent], told[CheckpointEvent]) == (1, 12, 2, 2)
    assert isinstance(events[-1], EndEvent)


def test_load_run_reads_a_run_and_one_checkpoint(tmp_path: Path, small_spec: MakeSpec) -> None:
    result = train_run(small_spec(), tmp_path / "run")
    for path in (tmp_path / "run", checkpoints.path_of(tmp_path / "run", 12)):
        model, tokenizer, tables = load_run(path)
        assert not model.training
        assert model.config.vocab_size == tokenizer.vocab_size
        assert tables["model"]["n_heads"] == 2
    assert evaluate_run(tmp_path / "run").loss == pytest.approx(result.loss, abs=1e-9)


def test_train_run_only_reports_a_finished_run(tmp_path: Path, small_spec: MakeSpec) -> None:
    first = train_run(small_spec(), tmp_path / "run")
    events = list[Event]()
    assert train_run(small_spec(), tmp_path / "run", resume=True, listeners=[events.append]) == first
    assert {type(event) for event in events} == {EndEvent}


def test_train_run_depends_on_its_seed_alone(tmp_path: Path, small_spec: MakeSpec) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(ord(name))
        train_run(small_spec(seed=seed, dropout=0.1), tmp_path / name)
    assert_same(tensors(tmp_path / "a", 12), tensors(tmp_path / "b", 12))
    assert not torch.equal(*(tensors(tmp_path / name, 12)["model.safetensors:norm.weight"] for name in "ac"))


def test_train_run_with_accumulation_equals_one_large_batch(tmp_path: Path, small_spec: MakeSpec) -> None:
    train_run(small_spec(batch_size=12), tmp_path / "large")
    train_run(small_spec(batch_size=4, grad_accumulation=3), tmp_path / "small")
    ours, theirs = (tensors(tmp_path / name, 12) for name in ("small", "large"))
    for name, tensor in ours.items():
        if name.startswith("model.safetensors"):
            torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=1e-4)


def test_train_run_brings_a_bigram_to_the_entropy_of_counts(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec = small_spec("bigram", steps=300, learning_rate=0.3, batch_size=32, weight_decay=0.0, eval_every=300)
    train_run(spec, tmp_path / "run")
    model, tokenizer, _ = load_run(tmp_path / "run")
    loss = evaluate(model, open_store(load_corpus(spec.data), tokenizer).train).loss
    cut = int(0.9 * len(TEXT))
    pairs = Counter(pairwise(TEXT[:cut]))
    firsts = Counter(TEXT[: cut - 1])
    entropy = -sum(n * math.log(n / firsts[first]) for (first, _), n in pairs.items()) / (cut - 1)
    assert entropy <= loss <= entropy + 0.01


def test_train_run_stops_at_divergence_without_saving_it(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec = small_spec("bigram", learning_rate=1e37, grad_clip=0.0, warmup_steps=0, schedule="constant")
    with pytest.raises(
        DivergedError,
        match=r"step \d+: the (loss|gradient norm|weight norm) is (nan|inf).*try a lower learning_rate",
    ):
        train_run(spec, tmp_path / "run")
    for step, _ in checkpoints.saved(tmp_path / "run"):
        for name, tensor in tensors(tmp_path / "run", step).items():
            assert torch.isfinite(tensor.float()).all(), name


def test_train_part_is_the_beginning_of_the_whole_run(tmp_path: Path, small_spec: MakeSpec) -> None:
    whole, run, spec = tmp_path / "whole", tmp_path / "run", small_spec(dropout=0.1)
    train_run(spec, whole)
    assert train_part(spec, run, 5).step == 5
    assert [(line["step"]) for line in read_metrics(run) if line["split"] == "val"] == [4], "nothing more is evaluated"
    assert not (run / "sample.txt").exists()
    assert train_part(spec, run, 3).step == 5, "a run that is past the step stays as it is"
    assert train_part(spec, run, 8).step == 8
    train_run(spec, run, resume=True)
    assert_same(tensors(run, 12), tensors(whole, 12))
    timed = {"seconds", "tokens_per_s"}
    ours, theirs = (
        [{key: value for key, value in line.items() if key not in timed} for line in read_metrics(path)]
        for path in (run, whole)
    )
    assert ours == theirs


def test_train_part_of_all_steps_leaves_out_the_last_evaluation(tmp_path: Path, small_spec: MakeSpec) -> None:
    whole, run, spec = tmp_path / "whole", tmp_path / "run", small_spec(dropout=0.1)
    result = train_run(spec, whole)
    for _ in range(2):
        assert train_part(spec, run, 12).val_step == 8
        assert [line["step"] for line in read_metrics(run) if line["split"] == "val"] == [4, 8]
    assert train_run(spec, run, resume=True, sample=False).loss == result.loss
    last, expected = (read_metrics(path)[-1] for path in (run, whole))
    assert (last["step"], last["split"], last["activations"]) == (12, "val", expected["activations"])
    assert not (run / "sample.txt").exists()
    train_run(spec, run, resume=True)
    assert (run / "sample.txt").read_text() == (whole / "sample.txt").read_text()


def test_train_run_takes_another_evaluation_after_the_last_step(tmp_path: Path, small_spec: MakeSpec) -> None:
    evaluated: list[str] = []

    def last(model: LanguageModel, split: TokenSplit, precision: str) -> Generator[tuple[int, int], None, EvalResult]:
        evaluated.append(precision)
        yield 0, split.n_tokens
        return dataclasses.replace(evaluate(model, split, precision=precision), loss=1.25)

    result = train_run(small_spec(), tmp_path / "run", last_evaluation=last)
    assert (result.loss, evaluated) == (1.25, ["float32"])
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "val"]
    assert losses[-1] == 1.25
    assert 1.25 not in losses[:-1]


# Bad input is refused in one line, and nothing is written -------------------------------------------------------------


def refused(error: type[LmzooError], message: str, spec: RunSpec, out: Path, *, resume: bool = False) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(error, match=message) as caught:
        train_run(spec, out, resume=resume)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_train_run_refuses_a_text_that_cannot_be_used(tmp_path: Path, small_spec: MakeSpec) -> None:
    short = tmp_path / "short.txt"
    short.write_text("x" * 15)
    refused(
        DataError, "13 tokens: context_length=16 needs at least 17", make_spec_on(short, small_spec), tmp_path / "run"
    )
    refused(DataError, "no such file", make_spec_on(tmp_path / "none.txt", small_spec), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def make_spec_on(text: Path, small_spec: MakeSpec) -> RunSpec:
    spec = small_spec()
    return RunSpec(model=spec.model, data=str(text), config=spec.config, train=spec.train)


def test_train_run_refuses_a_directory_that_cannot_be_used(tmp_path: Path, small_spec: MakeSpec) -> None:
    full, run = tmp_path / "full", tmp_path / "run"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    refused(ConfigError, "exists, is not empty, and holds no run", small_spec(), full)
    refused(ConfigError, "exists, is not empty, and holds no run", small_spec(), full, resume=True)
    refused(ConfigError, "exists and is not a directory", small_spec(), full / "thesis.txt")
    refused(ConfigError, "cannot be written: .*thesis.txt is read-only or not", small_spec(), full / "thesis.txt/x")
    train_run(small_spec(), run)
    refused(ConfigError, "holds a run already: --resume continues it", small_spec(), run)


def test_train_run_refuses_a_run_that_is_being_trained(tmp_path: Path, small_spec: MakeSpec) -> None:
    def second(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == 3:
            refused(ConfigError, "is being trained in by another process", small_spec(), tmp_path / "run", resume=True)

    train_run(small_spec(), tmp_path / "run", listeners=[second])


def test_train_run_replaces_a_tokenizer_left_by_an_early_kill(tmp_path: Path, small_spec: MakeSpec) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "validation.safetensors").write_text("{")
    train_run(small_spec("bigram"), tmp_path)
    assert load_run(tmp_path).tokenizer.spec == "char"
    assert evaluate_run(tmp_path).tokens > 0


def test_train_run_takes_an_empty_directory(tmp_path: Path, small_spec: MakeSpec) -> None:
    train_run(small_spec("bigram"), tmp_path)
    assert checkpoints.saved(tmp_path)[0][0] == 12


def test_train_run_refuses_to_resume_another_run(tmp_path: Path, small_spec: MakeSpec, text: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy.txt"
    copy.write_text(TEXT)
    spec = make_spec_on(copy, small_spec)
    train_run(spec, run)
    cases = [
        (small_spec(learning_rate=0.5), "train.learning_rate=0.5, but the run in .* was made with 0.003"),
        (small_spec(n_heads=4), "model.n_heads=4, but the run in .* was made with 2"),
        (small_spec(warmup_steps=3), "train.warmup_steps=3, but .* made with 2"),
        (small_spec("bigram"), "model.name='bigram', but .* made with 'gpt2'"),
    ]
    for other, message in cases:
        refused(ConfigError, message, other, run, resume=True)
    moved = make_spec_on(text, small_spec)  # the same text in another place is the same text
    train_run(moved, run, resume=True)
    copy.write_text(TEXT.replace("cats", "dogs"))
    refused(DataError, "data.corpus_sha256=.* was made with", spec, run, resume=True)
    loss = read_metrics(run)[-1]["loss"]
    assert evaluate_run(run).loss == pytest.approx(loss, abs=1e-9)  # on the validation text that the run keeps
    copy.unlink()
    assert evaluate_run(run).loss == pytest.approx(loss, abs=1e-9)


def test_evaluate_run_refuses_another_text_for_a_run_that_keeps_none(
    tmp_path: Path, small_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "MAX_BYTES", 0)
    copy = tmp_path / "cats.txt"
    copy.write_text(TEXT)
    result = train_run(make_spec_on(copy, small_spec), tmp_path / "run")
    assert evaluate_run(tmp_path / "run").loss == pytest.approx(result.loss, abs=1e-9)
    copy.write_text(TEXT.replace("cats", "dogs"))
    with pytest.raises(DataError, match="its SHA-256 is"):
        evaluate_run(tmp_path / "run")


def test_load_run_refuses_what_is_not_a_run(tmp_path: Path, small_spec: MakeSpec) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run: it has no config.toml"):
        load_run(tmp_path)
    train_run(small_spec(), tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    good = config.read_text()
    config.write_text(good.replace("[machine]", "[magic]"))
    with pytest.raises(CheckpointError, match=r"has no table \[machine\]"):
        load_run(tmp_path / "run")
    config.write_text(good.replace('precision = "float32"', 'precision = "fp4"'))
    with pytest.raises(CheckpointError, match="precision='fp4' must be"):
        load_run(tmp_path / "run")
    config.write_text(good)
    (tmp_path / "run" / "tokenizer.json").write_text(json.dumps({"lmzoo": "byte", "version": 1}))
    with pytest.raises(CheckpointError, match=r"vocab_size=\d+, its tokenizer 256"):
        load_run(tmp_path / "run")


def test_train_run_replaces_the_vocabulary_size_of_a_preset(tmp_path: Path, text: Path) -> None:
    spec = make_spec("bigram.tiny", str(text), tokenizer="byte", overrides={"steps": 2, "batch_size": 2})
    train_run(spec, tmp_path / "run")
    assert load_run(tmp_path / "run").model.config.vocab_size == 256


def test_train_run_clips_a_gradient_longer_than_grad_clip(tmp_path: Path, small_spec: MakeSpec) -> None:
    """Measured in the first moments of the optimizer after one step, which are a tenth of the clipped gradient."""

    def moments(clip: float) -> torch.Tensor:
        run = tmp_path / str(clip)
        train_run(small_spec(steps=1, warmup_steps=0, grad_clip=clip), run)
        found = [value for name, value in sorted(tensors(run, 1).items()) if name.endswith("exp_avg")]
        return torch.cat([value.flatten() for value in found])

    whole = moments(0.0)
    norm = next(line["grad_norm"] for line in read_metrics(tmp_path / "0.0") if line["split"] == "train")
    assert whole.norm().item() == pytest.approx(norm / 10, rel=1e-4)
    assert torch.equal(moments(1.5 * norm), whole)
    torch.testing.assert_close(moments(norm / 4), whole / 4, rtol=1e-4, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_train_run_logs_auxiliary_losses_by_name(
    tmp_path: Path, small_spec: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """The experts' balance loss: the mean over a step's sequences, and no part of the loss."""
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: whole(model, backend="eager"))
    shape = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 16, "n_experts": 4, "precision": "float32"}
    lines = {}
    for accumulation in (1, 2):
        settings = {**shape, "batch_size": 4 // accumulation, "grad_accumulation": accumulation, "compile": compiled}
        train_run(small_spec("mixtral", **settings, steps=2), tmp_path / str(accumulation))
        found = read_metrics(tmp_path / str(accumulation))
        lines[accumulation] = [line for line in found if line["split"] == "train"]
    for line in lines[1]:
        assert 0.04 <= line["aux.balance"] < 0.08  # 0.02 times top_k when the load is even, more when it is not
        assert abs(line["loss"] - 3.5) < 0.6
    assert lines[2][0]["loss"] == pytest.approx(lines[1][0]["loss"], rel=1e-5)
    assert lines[2][0]["aux.balance"] == pytest.approx(lines[1][0]["aux.balance"], rel=0.1)  # not additive over rows
    assert "aux.balance" not in read_metrics(tmp_path / "1")[-1]


def test_evaluate_run_expands_no_pattern_of_a_run(
    tmp_path: Path, text: Path, small_spec: Callable[..., RunSpec]
) -> None:
    """A run may come from somebody else, and "/**" in it would read the whole disk."""
    run = tmp_path / "run"
    train_run(small_spec("bigram"), run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(text), "/**"))
    assert evaluate_run(run).tokens > 0, "the run keeps its validation tokens"
    (run / validation.VALIDATION_FILE).unlink()
    with pytest.raises(DataError, match=r"was trained on data='/\*\*', a pattern: give the text with --data"):
        evaluate_run(run)
    assert evaluate_run(run, str(text)).tokens > 0


def test_train_run_refuses_a_batch_that_no_memory_holds(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    with pytest.raises(InputError, match=r"a batch of .* tokens needs"):
        train_run(small_spec("bigram", batch_size=10**6, context_length=1 << 30), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_make_spec_refuses_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data='.*\\udcff.txt': the name is not UTF-8"):
        make_spec("bigram", str(tmp_path / "a\udcff.txt"))


def test_train_run_fits_a_model_without_parameters(tmp_path: Path, small_spec: MakeSpec, text: Path) -> None:
    """One evaluation and one checkpoint, with the loss of n-grams counted on what the steps would have read."""
    run, spec, events = tmp_path / "run", small_spec("ngram", order=3), list[Event]()
    result = train_run(spec, run, listeners=[events.append])
    assert tomllib.loads((run / "config.toml").read_text())["model"]["order"] == 3
    assert [(line["step"], line["split"]) for line in read_metrics(run)] == [(12, "val")]
    assert [step for step, _ in checkpoints.saved(run)] == [12]
    assert Counter(type(event) for event in events)[StepEvent] == 0
    assert len((run / "sample.txt").read_text()) == SHORT_SAMPLE + 1

    corpus = load_corpus(str(text))
    store = open_store(corpus, load_run(run).tokenizer)
    windows = BatchStream(store.train.tokens, 4, 16, spec.train.seed).first_windows(12 * 4)
    assert result.tokens == windows[:, 1:].size
    expected = NGram(windows, len(set(TEXT)), 3).loss(store.val.tokens, context_length=16)
    assert result.loss == pytest.approx(expected, rel=1e-5)
    assert evaluate_run(run).loss == pytest.approx(expected, rel=1e-5)
    again = train_run(spec, run, resume=True)
    assert (again.loss, again.tokens) == (result.loss, result.tokens)


def test_train_run_fits_again_to_prolong_a_run(tmp_path: Path, small_spec: MakeSpec) -> None:
    recipe = {"order": 3, "schedule": "constant"}
    train_run(small_spec("ngram", **recipe, steps=3), tmp_path / "run")
    train_run(small_spec("ngram", **recipe, steps=9), tmp_path / "run", resume=True, prolong=True)
    train_run(small_spec("ngram", **recipe, steps=9), tmp_path / "whole")
    longer, whole = (load_run(tmp_path / name).model.state_dict() for name in ("run", "whole"))
    assert all(torch.equal(longer[name], tensor) for name, tensor in whole.items())
    assert [(line["step"], line["tokens"]) for line in read_metrics(tmp_path / "run")] == [(3, 192), (9, 576)]


def test_train_run_refuses_a_trainable_model_without_parameters(
    tmp_path: Path, small_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NGramModel, "traits", property(lambda _: Traits(extrapolates=True)))
    with pytest.raises(ConfigError, match="ngram has no parameters: there is nothing to train"):
        train_run(small_spec("ngram"), tmp_path / "run")
