"""Tests real comparisons of small models: files that are written, runs that are reused, rows without rank."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.compare import Results, compare, description
from lmzoo.compare.ngram import NGram
from lmzoo.compare.table import print_results
from lmzoo.data.batches import BatchStream
from lmzoo.data.corpora import load_corpus
from lmzoo.data.overlap import measure_overlap
from lmzoo.data.synthetic import EntropyRate
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import ConfigError, DataError, LmzooError, UnknownModelError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.runs import inputs
from lmzoo.runs.lock import locked
from lmzoo.runs.run import evaluate_run, make_spec, train_run
from lmzoo.state import State
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import Event, NoteEvent, StartEvent, StepEvent
from lmzoo.train.signals import Interrupted
from tests.helpers import SHORT_SAMPLE

TRAINING = {"steps": 30, "batch_size": 4, "context_length": 16, "learning_rate": 3e-2, "eval_every": 10}
SETTINGS = TRAINING | {"d_model": 16, "n_layers": 1, "n_heads": 2}
NAMES = ["bigram", "gpt2"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = random.Random(0)
    words = "the sea was calm and a small ship sells shells on the shore when wind is <b> & blew"
    lines = (" ".join(rng.choice(words.split()) for _ in range(rng.randint(3, 8))) for _ in range(250))
    path = tmp_path_factory.mktemp("text") / "sea.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def finished(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Results, Path]]:
    """A finished comparison, for the tests that only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        out = tmp_path_factory.mktemp("finished") / "out"
        yield compare(NAMES, text, out, settings=SETTINGS, command=f"lmzoo compare bigram gpt2 --data {text}"), out


def steps_of(events: list[Event]) -> int:
    return sum(isinstance(event, StepEvent) for event in events)


def lasting(results: Results) -> list[tuple[Any, ...]]:
    """Return the fields of the rows that must not depend on timings."""
    rows = sorted(results.models, key=lambda row: row.name)
    return [(row.name, row.status, row.loss, row.bits_per_byte, row.params, row.curve, row.sample) for row in rows]


def test_compare_writes_results_json(finished: tuple[Results, Path]) -> None:
    results, out = finished
    tables = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert tables["schema"] == 2
    assert tables["complete"] is True
    assert tables["budget"] == {
        "kind": "steps",
        "amount": 30,
        "steps": 30,
        "batch_size": 4,
        "context_length": 16,
        "documents": "joined",
        "tokens": 1920,
    }
    assert {row["name"] for row in tables["models"]} == set(NAMES)
    losses = [row["loss"] for row in tables["models"]]
    assert losses == sorted(losses)
    for row in tables["models"]:
        assert row["run"] == f"runs/{row['name']}"
        assert (out / row["run"] / "config.toml").is_file()
        assert row["train_tokens_per_s"] > 0
        assert row["decode_tokens_per_s"] > 0
        assert row["params"] >= row["params_non_embedding"]
        assert row["flops_per_token"] > 0 or row["name"] == "bigram"
        assert [tokens for tokens, _ in row["curve"]] == [640, 1280, 1920]
        assert row["curve"][-1][1] == row["loss"]
        assert len(row["sample"]) == SHORT_SAMPLE
        assert row["config"]["model"]["context_length"] == 16
    assert tables["models"][0]["name"] == "gpt2"
    assert [line["name"] for line in tables["references"]] == [f"{n}-gram" for n in range(1, 7)]
    assert tables["seed"] == 1337
    assert [row["loss"] for row in tables["models"]] == [row.loss for row in results.ranked]


def test_compare_writes_no_absolute_path(finished: tuple[Results, Path]) -> None:
    _, out = finished
    for name in ("results.json", "table.md", "report.html"):
        written = (out / name).read_text(encoding="utf-8")
        assert str(out.parent) not in written
        assert str(Path.cwd()) not in written
    assert json.loads((out / "results.json").read_text())["command"] == "lmzoo compare bigram gpt2 --data sea.txt"


def test_compare_states_the_protocol_and_the_yardsticks(finished: tuple[Results, Path]) -> None:
    results, out = finished
    tables = json.loads((out / "results.json").read_text(encoding="utf-8"))
    facts = tables["protocol"]
    assert (facts["context_length"], facts["stride"], facts["split"]) == (16, 16, "whole")
    assert facts["targets"] == results.corpus["val_tokens"] - 1
    assert [line["name"] for line in tables["yardsticks"]] == ["uniform", "xz"]
    for row in tables["models"]:
        assert row["by_class"] == row["cells"][0]["by_class"]
        assert row["loss"] < tables["yardsticks"][0]["loss"]
    written = (out / "table.md").read_text(encoding="utf-8")
    assert "| *xz* |" in written
    for name in ("table.md", "report.html"):
        assert "read in windows of 16 tokens that do not overlap" in (out / name).read_text(encoding="utf-8")


def test_compare_with_a_stride_gives_the_ngrams_the_same_windows(
    text: str, finished: tuple[Results, Path], tmp_path: Path
) -> None:
    results = compare(["ngram"], text, tmp_path, stride=3, settings=TRAINING | {"order": 4})
    assert results.protocol["stride"] == 3
    (row,) = results.ranked
    expected = {reference.order: reference.loss for reference in results.references}
    assert row.loss == pytest.approx(expected[4], rel=1e-5)
    assert expected[4] < next(line.loss for line in finished[0].references if line.order == 4) - 1e-3
    with pytest.raises(ConfigError, match=r"stride=17 must be an integer in \[1, context_length=16\]"):
        compare(["bigram"], text, tmp_path / "new", stride=17, settings=TRAINING)
    assert not (tmp_path / "new").exists()


def test_compare_carries_the_context(text: str, tmp_path: Path) -> None:
    results = compare(["ngram"], text, tmp_path, settings=TRAINING | {"order": 4}, context="carried")
    facts = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["protocol"]
    targets = facts["targets"]
    assert (facts["context"], facts["stride"], facts["rows"], facts["longest_row"]) == ("carried", 16, 1, targets)
    (row,) = results.ranked
    assert facts["states"] == {"ngram": {"bytes": row.state_bytes, "growth": "constant"}}
    whole, reset = (evaluate_run(tmp_path / row.run, context=context).loss for context in ("carried", "reset"))
    assert row.loss == pytest.approx(whole, abs=1e-6)
    assert whole < reset - 1e-3
    assert row.curve[-1][1] == pytest.approx(reset, abs=2e-6), "training is evaluated as before"
    assert row.by_position[-1]["last"] == 64, "in windows whose context is reset"
    pairs = [part for part in row.by_class if part["name"] in ("repeated bigram", "not repeated")]
    assert sum(part["loss"] * part["tokens"] for part in pairs) / targets == pytest.approx(whole, abs=1e-5)
    assert row.loss == pytest.approx(next(line.loss for line in results.references if line.order == 4), rel=1e-5)
    for name in ("table.md", "report.html"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert "in one row in windows of 16 tokens; the context is carried from window to window" in written
        assert "States of constant size:" in written
        assert "whose context is reset" in written


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["lstm", "gpt2"], {}, r"^context='carried' cannot be given: gpt2 sees at most context_length=16 tokens"),
        (["lstm"], {"stride": 4}, r"^stride=4 cannot be given: windows whose context is carried do not overlap$"),
        (["lstm"], {"context": "kept"}, r"^context='kept' must be one of: reset, carried$"),
    ],
)
def test_compare_refuses_a_context_that_cannot_be_carried(
    text: str, tmp_path: Path, names: list[str], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(names, text, tmp_path / "new", settings=TRAINING, **{"context": "carried", **more})
    assert not (tmp_path / "new").exists()


def test_compare_says_that_it_cuts_a_context(finished: tuple[Results, Path], text: str, tmp_path: Path) -> None:
    results, _ = finished
    assert results.cut_contexts == {"gpt2": 256}, "bigram looks at one token"
    notes: list[str] = []
    settings = {"steps": 1, "batch_size": 4, "n_layers": 1, "model.d_model": 8}
    mixed = compare(
        ["gpt2.1m", "mlp.tiny"],
        f"{Path(text).parent}/*.txt",
        tmp_path / "out",
        settings=settings,
        listeners=[lambda event: notes.append(event.message) if isinstance(event, NoteEvent) else None],
    )
    assert mixed.corpus["name"] == "*.txt", "without folders"
    assert mixed.cut_contexts == {"gpt2.1m": 128}
    assert notes[0].startswith("gpt2.1m sees 64 tokens of context here, not its own 128: ")
    assert "gpt2.1m sees 64 tokens" in (tmp_path / "out" / "table.md").read_text()
    assert "gpt2.1m sees 64 tokens" in (tmp_path / "out" / "report.html").read_text()


def test_compare_evaluates_on_the_whole_validation_split(finished: tuple[Results, Path], text: str) -> None:
    results, out = finished
    for row in results.models:
        again = evaluate_run(out / row.run, text)
        assert again.tokens == results.corpus["val_tokens"] - 1
        assert row.loss == pytest.approx(again.loss, abs=1e-6)
        assert row.bits_per_byte == pytest.approx(again.bits_per_byte, abs=1e-6)


@pytest.mark.usefixtures("full_samples")
def test_compare_counts_ngrams_on_the_windows_that_the_models_saw(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    plain = BatchStream.batch

    def recorded(self: BatchStream, step: int) -> tuple[Tensor, Tensor]:
        idx_BT, targets_BT = plain(self, step)
        seen.append(torch.cat([idx_BT, targets_BT[:, -1:]], dim=1))
        return idx_BT, targets_BT

    monkeypatch.setattr(BatchStream, "batch", recorded)
    results = compare(["bigram"], text, tmp_path, settings=TRAINING)
    assert len(results.models[0].sample) == 300
    corpus = load_corpus(text)
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    train, val = torch.cat(seen).numpy(), tokenizer.encode_array("".join(corpus.chunks("val")))
    assert train.size < len(tokenizer.encode("".join(corpus.chunks("train"))))
    counts = NGram(train, tokenizer.vocab_size)
    assert [line.loss for line in results.references] == [
        counts.loss(val, order, context_length=16) for order in range(1, 7)
    ]
    assert {line.counted_tokens for line in results.references} == {results.budget["tokens"]}


def test_compare_counts_each_window_once_in_several_epochs(text: str, tmp_path: Path) -> None:
    results = compare(["bigram"], text, tmp_path, settings=TRAINING | {"steps": 300})
    (counted,) = {line.counted_tokens for line in results.references}
    assert results.corpus["train_tokens"] - 32 <= counted < results.budget["tokens"]
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "counted on the training text that the models saw, each window once" in report


def test_compare_states_the_overlap_of_the_splits(finished: tuple[Results, Path], text: str) -> None:
    results, out = finished
    overlap = measure_overlap(load_corpus(text))
    assert results.corpus["overlap"]["share"] == overlap.share
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))["corpus"]["overlap"]["text"] == str(overlap)
    for name in ("table.md", "report.html"):
        assert str(overlap) in (out / name).read_text(encoding="utf-8")


def test_compare_writes_table_and_report_escaped(finished: tuple[Results, Path]) -> None:
    results, out = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b> " not in page  # of the corpus, through a prompt or a sample
    assert "lmzoo compare bigram gpt2" in page
    best = results.ranked[0]
    assert f"| 1 | {best.name} | {best.loss:.3f} |" in (out / "table.md").read_text(encoding="utf-8")


def test_compare_reads_the_text_and_trains_the_tokenizer_once(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any number of models, and also if the comparison continues runs that have a tokenizer already."""
    counts: Counter[str] = Counter()

    def count(module: ModuleType, name: str) -> None:
        plain = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return plain(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    for name in ("load_corpus", "train_tokenizer", "open_store"):
        count(inputs, name)
    compare([*NAMES, "mlp"], text, tmp_path, settings=SETTINGS | {"steps": 2})
    assert counts == {"load_corpus": 1, "train_tokenizer": 1, "open_store": 1}
    compare([*NAMES, "mlp"], text, tmp_path, settings=SETTINGS | {"steps": 2})
    assert set(counts.values()) == {2}


def test_compare_reports_the_settings_that_a_run_recorded(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run is reused although a default has changed: the report shows the settings of its training."""
    compare(["bigram"], text, tmp_path, settings=TRAINING)
    plain = TrainConfig.resolved
    monkeypatch.setattr(TrainConfig, "resolved", lambda self: dataclasses.replace(plain(self), warmup_steps=30))
    (row,) = compare(["bigram"], text, tmp_path, settings=TRAINING).models
    assert row.config["train"]["warmup_steps"] == 1


def test_compare_reuses_finished_runs(text: str, finished: tuple[Results, Path]) -> None:
    results, out = finished
    events: list[Event] = []
    again = compare(NAMES, text, out, settings=SETTINGS, listeners=[events.append])
    assert steps_of(events) == 0
    assert lasting(again) == lasting(results)
    assert [row.train_tokens_per_s for row in again.models] == [row.train_tokens_per_s for row in results.models]


def test_compare_continues_after_an_interruption(text: str, finished: tuple[Results, Path], tmp_path: Path) -> None:
    running: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, StartEvent):
            running.append(event.model)
        if isinstance(event, StepEvent) and running[-1] == "gpt2" and event.step == 17:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped .*gpt2 after step 17; the same command continues the comparison"):
        compare(NAMES, text, tmp_path, settings=SETTINGS, listeners=[stop])
    partial = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in partial["models"]] == ["bigram"]
    assert not partial["complete"]
    events: list[Event] = []
    again = compare(NAMES, text, tmp_path, settings=SETTINGS, listeners=[events.append])
    assert steps_of(events) == 13  # of gpt2 only
    assert again.complete
    assert lasting(again) == lasting(finished[0])


def test_compare_lists_a_diverged_model_without_rank(text: str, tmp_path: Path) -> None:
    settings = SETTINGS | {"learning_rate": 1e30, "warmup_steps": 0}
    results = compare(["gpt2"], text, tmp_path, settings=settings, listeners=[lambda _: None])  # with a forecast
    assert results.ranked == []
    (row,) = results.models
    assert row.status == "diverged"
    assert "learning_rate" in row.problem
    assert row.loss is None
    assert row.params > 0
    assert "diverged" in (tmp_path / "report.html").read_text(encoding="utf-8")


class Leaky(LanguageModel):
    """Averages over the whole sequence, future tokens included: the loss falls, but means nothing."""

    family = "leaky"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 8)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.embedding(idx_BT)
        return x_BTD + x_BTD.mean(dim=1, keepdim=True), state


def test_compare_does_not_train_what_fails_a_check(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._classes, "leaky", Leaky)
    results = compare(["leaky", "bigram"], text, tmp_path, settings=TRAINING)
    assert [row.name for row in results.ranked] == ["bigram"]
    (row,) = results.unranked
    assert row.status == "failed"
    assert "causality" in row.problem
    assert not (tmp_path / "runs" / "leaky").exists()  # it was not trained


@pytest.mark.parametrize(
    ("names", "more", "error", "message"),
    [
        ([], {}, ConfigError, "name at least one model"),
        (["bigram", "bigram"], {}, ConfigError, "'bigram' is named twice"),
        (["bigram", "gtp2"], {}, UnknownModelError, "did you mean 'gpt2'"),
        (["bigram", "gpt2"], {"d_modle": 3}, ConfigError, "d_modle=3 is not a setting"),
        (["bigram", "gpt2"], {"n_heads": 3}, ConfigError, "n_heads=3 must divide d_model=16"),
        (["bigram"], {"steps": 0}, ConfigError, "steps=0 must be a positive integer"),
        (["bigram"], {"eval_tokens": 5}, ConfigError, "eval_tokens cannot be set"),
        (["bigram"], {"vocab_size": 5}, ConfigError, "vocab_size=5 cannot be set"),
        (["bigram"], {"context_length": 4000}, DataError, "context_length=4000 needs at least 4001"),
    ],
)
def test_compare_refuses_bad_input_in_one_line_and_writes_nothing(
    names: list[str], more: dict[str, Any], error: type[LmzooError], message: str, text: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=message) as caught:
        compare(names, text, out, settings=(SETTINGS if "gpt2" in names else TRAINING) | more)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_compare_refuses_a_directory_in_which_another_one_works(
    finished: tuple[Results, Path], text: str, tmp_path: Path
) -> None:
    _, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with locked(out), pytest.raises(ConfigError, match=r"^out=.* is being trained in by another process$"):
        compare(NAMES, text, out, settings=SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    refused: list[str] = []

    def second(event: Event) -> None:
        if isinstance(event, NoteEvent) and event.message.endswith("checking"):
            with pytest.raises(ConfigError, match="is being trained in by another process") as caught:
                compare(["bigram"], text, tmp_path / "new", settings=TRAINING)
            refused.append(str(caught.value))

    compare(["bigram"], text, tmp_path / "new", settings={**TRAINING, "steps": 2}, listeners=[second])
    assert len(refused) == 1
    with locked(tmp_path / "new"):
        """It is free again."""


def test_compare_refuses_to_run_on_each_rank_of_a_launcher(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE=2: start the command without torchrun: a comparison makes"):
        compare(["bigram"], text, tmp_path / "new", settings=TRAINING)


def test_compare_refuses_a_directory_with_other_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty, and holds no comparison"):
        compare(["bigram"], text, tmp_path, settings=TRAINING)
    with pytest.raises(ConfigError, match="is not a directory"):
        compare(["bigram"], text, tmp_path / "thesis.tex", settings=TRAINING)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_compare_names_an_unknown_character_of_the_prompt(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'é'"):
        compare(["bigram"], text, tmp_path / "out", settings=TRAINING, prompt="é")
    assert not (tmp_path / "out").exists()


def test_compare_leaves_the_global_random_state_alone(text: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    compare(["bigram"], text, tmp_path, settings=TRAINING)
    assert torch.equal(torch.rand(3), expected)


def test_compare_goes_on_after_a_plugin_that_raises(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    plugin = tmp_path / "raising.py"
    plugin.write_text(
        "import lmzoo\n@lmzoo.register_model('raising')\nclass Raising(lmzoo.LanguageModel):\n"
        "    def __init__(self, config):\n        raise KeyError('a\\x1b[2J')\n"
        "    def features(self, idx_BT, state=None): ...\n"
    )
    registry.load_plugin(str(plugin))
    settings = {"steps": 2, "batch_size": 2, "context_length": 8}
    results = compare(["raising", "bigram"], text, tmp_path / "out", settings=settings)
    row = results.models[0]
    assert (row.name, row.status) == ("raising", "failed")
    assert row.problem.startswith(f"{plugin.name}:5: KeyError")
    assert [model.name for model in results.ranked] == ["bigram"]
    assert "\x1b" not in (tmp_path / "out" / "table.md").read_text()


def test_compare_takes_finished_runs(finished: tuple[Results, Path], text: str, tmp_path: Path) -> None:
    results, out = finished
    runs = [str(out / "runs" / name) for name in NAMES]
    events: list[Event] = []
    again = compare(runs, None, tmp_path / "again", listeners=[events.append])
    assert steps_of(events) == 0
    assert [row.name for row in again.models] == runs
    for row, name in zip(again.models, NAMES, strict=True):
        before = next(model for model in results.models if model.name == name)
        assert (row.loss, row.sample, row.run) == (before.loss, before.sample, before.run)
    assert (again.budget, again.references) == (results.budget, results.references)
    assert (tmp_path / "again" / "report.html").is_file()


def test_compare_evaluates_finished_runs_on_the_whole_split(text: str, tmp_path: Path) -> None:
    spec = make_spec("bigram", text, overrides=TRAINING | {"eval_tokens": 64})
    part = train_run(spec, tmp_path / "run")
    (row,) = compare([str(tmp_path / "run")], None, tmp_path / "out").models
    assert row.loss == evaluate_run(tmp_path / "run").loss != part.loss


def test_compare_gives_the_model_ngram_the_loss_of_the_counted_ngrams(text: str, tmp_path: Path) -> None:
    """Both count what the models are trained on, once, and read the validation text in the same windows."""
    results = compare(["ngram", "bigram"], text, tmp_path / "out", settings=TRAINING | {"order": 4})
    found = {model.name: model for model in results.ranked}
    expected = {reference.order: reference.loss for reference in results.references}
    assert found["ngram"].loss == pytest.approx(expected[4], rel=1e-5)
    assert found["ngram"].params == 0
    assert len(found["ngram"].curve) == 1


def test_compare_states_the_entropy_rate_of_a_synthetic_source(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(description, "entropy_rate", {text: EntropyRate(1.25, 0.0)}.get)  # a real source is larger
    results = compare(["bigram"], text, tmp_path, settings={"steps": 2, "batch_size": 2, "context_length": 8})
    assert results.corpus["entropy_rate"] == {"nats": 1.25, "error": 0.0}
    print_results(results, tmp_path)
    assert "The entropy rate of sea.txt is 1.250 nats per token" in capsys.readouterr().out


def test_compare_knows_no_entropy_rate_of_a_text(finished: tuple[Results, Path]) -> None:
    assert finished[0].corpus["entropy_rate"] is None
