"""Real comparisons of small models on a small text: what is written, what is reused, what has no rank."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.compare import Results, compare
from lmzoo.compare.ngram import NGram
from lmzoo.compare.plan import make_specs
from lmzoo.compare.results import read_results
from lmzoo.data.corpora import load_corpus
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import ConfigError, DataError, LmzooError, UnknownModelError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.runs.run import evaluate_run
from lmzoo.runs.spec import make_spec
from lmzoo.state import State
from lmzoo.train.events import Event, StartEvent, StepEvent
from lmzoo.train.signals import Interrupted

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
    """One comparison that went well, for the tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        out = tmp_path_factory.mktemp("finished") / "out"
        yield compare(NAMES, text, out, settings=SETTINGS, command="lmzoo compare bigram gpt2"), out


def steps_of(events: list[Event]) -> int:
    return sum(isinstance(event, StepEvent) for event in events)


def lasting(results: Results) -> list[tuple[Any, ...]]:
    """What of the rows must not depend on the clock."""
    rows = sorted(results.models, key=lambda row: row.name)
    return [(row.name, row.status, row.loss, row.bits_per_byte, row.params, row.curve, row.sample) for row in rows]


def test_results_json_has_the_promised_form(finished: tuple[Results, Path]) -> None:
    results, out = finished
    tables = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert tables["schema"] == 1
    assert tables["complete"] is True
    assert tables["budget"] == {"steps": 30, "batch_size": 4, "context_length": 16, "tokens": 1920}
    assert {row["name"] for row in tables["models"]} == set(NAMES)
    losses = [row["loss"] for row in tables["models"]]
    assert losses == sorted(losses)
    for row in tables["models"]:
        assert (Path(row["run"]) / "config.toml").is_file()
        assert row["train_tokens_per_s"] > 0
        assert row["decode_tokens_per_s"] > 0
        assert row["params"] >= row["params_non_embedding"]
        assert row["flops_per_token"] > 0 or row["name"] == "bigram"
        assert [tokens for tokens, _ in row["curve"]] == [640, 1280, 1920]
        assert row["curve"][-1][1] == row["loss"]
        assert len(row["sample"]) == 300
        assert row["config"]["model"]["context_length"] == 16
    assert tables["models"][0]["name"] == "gpt2"
    assert [line["name"] for line in tables["references"]] == [f"{n}-gram" for n in range(1, 7)]
    assert tables["seed"] == 1337
    assert read_results(out).ranked == results.ranked


def test_every_model_is_judged_on_the_whole_validation_split(finished: tuple[Results, Path], text: str) -> None:
    results, _ = finished
    for row in results.models:
        again = evaluate_run(row.run, text)
        assert again.tokens == results.corpus["val_tokens"] - 1
        assert row.loss == pytest.approx(again.loss, abs=1e-6)
        assert row.bits_per_byte == pytest.approx(again.bits_per_byte, abs=1e-6)


def test_the_reference_lines_are_the_counts_of_the_same_split(finished: tuple[Results, Path], text: str) -> None:
    results, _ = finished
    corpus = load_corpus(text)
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    train, val = (tokenizer.encode_array("".join(corpus.chunks(split))) for split in ("train", "val"))
    counts = NGram(train, tokenizer.vocab_size)
    assert [line.loss for line in results.references] == [counts.loss(val, order) for order in range(1, 7)]


def test_table_and_report_are_written_and_escaped(finished: tuple[Results, Path]) -> None:
    results, out = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b> " not in page  # from the corpus, by way of a prompt or a sample
    assert "lmzoo compare bigram gpt2" in page
    best = results.ranked[0]
    assert f"| 1 | {best.name} | {best.loss:.3f} |" in (out / "table.md").read_text(encoding="utf-8")


def test_again_it_reuses_what_is_finished(text: str, finished: tuple[Results, Path]) -> None:
    results, out = finished
    events: list[Event] = []
    again = compare(NAMES, text, out, settings=SETTINGS, listeners=[events.append])
    assert steps_of(events) == 0
    assert lasting(again) == lasting(results)
    assert [row.train_tokens_per_s for row in again.models] == [row.train_tokens_per_s for row in results.models]


def test_an_interrupted_comparison_goes_on_to_the_same_end(
    text: str, finished: tuple[Results, Path], tmp_path: Path
) -> None:
    running: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, StartEvent):
            running.append(event.model)
        if isinstance(event, StepEvent) and running[-1] == "gpt2" and event.step == 17:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        compare(NAMES, text, tmp_path, settings=SETTINGS, listeners=[stop])
    partial = read_results(tmp_path)
    assert [row.name for row in partial.models] == ["bigram"]
    assert not partial.complete
    events: list[Event] = []
    again = compare(NAMES, text, tmp_path, settings=SETTINGS, listeners=[events.append])
    assert steps_of(events) == 13  # of gpt2 alone
    assert again.complete
    assert lasting(again) == lasting(finished[0])


def test_a_diverged_run_is_a_row(text: str, tmp_path: Path) -> None:
    results = compare(["gpt2"], text, tmp_path, settings=SETTINGS | {"learning_rate": 1e30, "warmup_steps": 0})
    assert results.ranked == []
    (row,) = results.models
    assert row.status == "diverged"
    assert "learning_rate" in row.problem
    assert row.loss is None
    assert row.params > 0
    assert "diverged" in (tmp_path / "report.html").read_text(encoding="utf-8")


class Leaky(LanguageModel):
    """Mixes the whole sequence, what is to come included: the loss falls, and means nothing."""

    family = "leaky"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 8)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD = self.embedding(idx_BT)
        return x_BTD + x_BTD.mean(dim=1, keepdim=True), state


def test_a_model_that_fails_a_check_has_no_rank(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._classes, "leaky", Leaky)
    results = compare(["leaky", "bigram"], text, tmp_path, settings=TRAINING)
    assert [row.name for row in results.ranked] == ["bigram"]
    (row,) = results.unranked
    assert row.status == "failed"
    assert "causality" in row.problem
    assert not (tmp_path / "runs" / "leaky").exists()  # nothing was spent on it


def test_one_budget_holds_for_all_whatever_the_presets_say() -> None:
    specs = make_specs(["bigram.tiny", "gpt2.1m", "gpt2.10m"], "x.txt", "char", {"train.steps": 7, "n_layers": 2})
    assert {(spec.train.steps, spec.train.batch_size, spec.train.seed) for spec in specs} == {(7, 16, 1337)}
    assert {spec.model_config(65).context_length for spec in specs} == {64}
    own = [make_spec(spec.model, "x.txt").train for spec in specs]  # each by its own recipe
    assert [spec.train.learning_rate for spec in specs] == [train.learning_rate for train in own]
    assert len({train.learning_rate for train in own}) > 1
    assert [getattr(spec.model_config(65), "n_layers", None) for spec in specs] == [None, 2, 2]
    wide = make_specs(["gpt2.1m", "gpt2.10m"], "x.txt", "char", {"context_length": 32})
    assert {spec.model_config(65).context_length for spec in wide} == {32}


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
def test_bad_input_is_one_line_and_writes_nothing(
    names: list[str], more: dict[str, Any], error: type[LmzooError], message: str, text: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=message) as caught:
        compare(names, text, out, settings=(SETTINGS if "gpt2" in names else TRAINING) | more)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_directory_with_other_things_in_it_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty, and holds no comparison"):
        compare(["bigram"], text, tmp_path, settings=TRAINING)
    with pytest.raises(ConfigError, match="is not a directory"):
        compare(["bigram"], text, tmp_path / "thesis.tex", settings=TRAINING)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unknown_character_in_the_prompt_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'é'"):
        compare(["bigram"], text, tmp_path / "out", settings=TRAINING, prompt="é")
    assert not (tmp_path / "out").exists()


def test_the_global_random_state_is_left_alone(text: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    compare(["bigram"], text, tmp_path, settings=TRAINING)
    assert torch.equal(torch.rand(3), expected)
