"""Tests of `lmzoo.train`, `compare`, `sample` and `inspect`; docs/python.md is executed by tests/test_docs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lmzoo
from lmzoo.errors import LmzooError
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import RunResult
from lmzoo.runs.saved import load_run
from lmzoo.train.events import Event, StepEvent
from tests import stand_ins
from tests.helpers import SMALL

QUICK = {**SMALL, "steps": 4, "batch_size": 4, "eval_every": 2, "log_every": 1}


@pytest.fixture
def run(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunResult:
    monkeypatch.chdir(tmp_path)
    return lmzoo.train("gpt2", str(text), progress=False, **QUICK)


def test_train_returns_a_result_that_tabulates_and_plots(run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.path == Path("runs/gpt2")
    stand_ins.install(monkeypatch)
    assert run.to_frame().rows == read_metrics(run.path)
    curves = run.plot().curves
    assert [len(points) for points in curves.values()] == [4, 2]
    assert curves["validation"][-1] == (run.tokens, run.loss)


def test_train_shows_progress_and_calls_listeners(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    settings = {"steps": 2, "batch_size": 2, "context_length": 16}
    lmzoo.train("bigram", str(text), tmp_path / "run", resume=True, listeners=[events.append], **settings)
    assert sum(isinstance(event, StepEvent) for event in events) == 2
    shown = "".join(capsys.readouterr())
    assert "holds no run yet" in " ".join(shown.split())
    assert "validation" in shown
    lmzoo.train(str(tmp_path / "run"), resume=True, progress=False)
    assert "".join(capsys.readouterr()) == ""


def test_sample_continues_with_anything_that_is_saved(run: RunResult, tmp_path: Path) -> None:
    model, tokenizer, _ = load_run(run.path)
    model.save(tmp_path / "saved", tokenizer=tokenizer)
    model.save(tmp_path / "bare")
    arguments: dict[str, Any] = {"max_new_tokens": 20, "seed": 3}
    texts = [
        lmzoo.sample(run, "The 1", **arguments),
        lmzoo.sample(run.path, "The 1", **arguments),
        lmzoo.sample(tmp_path / "saved", "The 1", **arguments),
        lmzoo.sample(tmp_path / "bare", "The 1", tokenizer=run.path, **arguments),
        lmzoo.sample(model, "The 1", tokenizer=tokenizer, temperature=0.8, **arguments),
    ]
    assert len(set(texts)) == 1
    assert (texts[0][:5], len(texts[0])) == ("The 1", 25)
    assert lmzoo.sample(run, max_new_tokens=5, stop=texts[0][7]).startswith("\n")


def test_inspect_takes_anything_that_is_saved(run: RunResult) -> None:
    model, tokenizer, _ = load_run(run.path)
    found = [
        lmzoo.inspect(run, "The 1"),
        lmzoo.inspect(run.path, "The 1"),
        lmzoo.inspect(model, "The 1", tokenizer=tokenizer),
    ]
    assert [each.name for each in found] == ["runs/gpt2", "runs/gpt2", "gpt2"]
    assert found[0].to_dict() == found[1].to_dict()
    assert found[2].nats == found[0].nats == pytest.approx(found[0].bits_per_byte * 0.693147, rel=1e-5)
    assert callable(lmzoo.inspect.influence)


def test_compare_returns_results_that_tabulate_and_plot(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 2, "batch_size": 2, "context_length": 16}
    results = lmzoo.compare(["bigram"], str(text), tmp_path / "out", progress=False, **settings)
    stand_ins.install(monkeypatch)
    (row,) = results.to_frame().rows
    assert (row["name"], row["loss"], row["status"]) == ("bigram", results.ranked[0].loss, "ranked")
    assert not {"sample", "checks"} & set(row)
    assert results.plot().curves["bigram"][-1][1] == pytest.approx(row["loss"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lmzoo.train("gpt2", dmodel=3), "dmodel=3 is not a setting"),
        (lambda: lmzoo.train(3), "name=3 must be"),  # type: ignore[arg-type]
        (lambda: lmzoo.train("gpt2", out=3), "out=3 must be a path"),  # type: ignore[arg-type]
        (lambda: lmzoo.train("gpt5"), "model 'gpt5' is unknown"),
        (lambda: lmzoo.compare("gpt2"), r"names='gpt2' must be a list of names"),
        (lambda: lmzoo.compare([]), "names is empty"),
        (lambda: lmzoo.compare([3]), "name=3 must be the name of a model"),  # type: ignore[list-item]
        (lambda: lmzoo.sample("absent"), "absent: there is no such run or checkpoint"),
        (lambda: lmzoo.sample(3), "path=3 must be a path"),  # type: ignore[arg-type]
        (lambda: lmzoo.sample(lmzoo.create_model("bigram", vocab_size=3)), "tokenizer=None must be the tokenizer"),
        (lambda: lmzoo.train("gpt2", listeners=None), "listeners=None must be a sequence of functions"),  # type: ignore[arg-type]
        (lambda: lmzoo.train("gpt2", listeners=["x"]), r"listeners=\['x'\] must be"),  # type: ignore[list-item]
        (lambda: lmzoo.compare(["bigram"], listeners=print), "listeners=<built-in"),  # type: ignore[arg-type]
        (lambda: lmzoo.inspect("absent", "a"), "absent: there is no such run or checkpoint"),
        (lambda: lmzoo.inspect(lmzoo.create_model("bigram", vocab_size=3), "a"), "tokenizer=None must be"),
    ],
)
def test_api_refuses_bad_arguments_in_one_line(call: Any, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LmzooError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sample_refuses_bad_settings(run: RunResult) -> None:
    for settings, message in (({"top_q": 1}, "top_q=1"), ({"seed": -1}, "seed=-1"), ({"stop": ""}, "empty string")):
        with pytest.raises(LmzooError, match=message):
            lmzoo.sample(run, "The", **settings)


def test_transplant_returns_a_model_like_any_other(run: RunResult, text: Path, tmp_path: Path) -> None:
    model, tokenizer, _ = load_run(run.path)
    mixed = lmzoo.transplant(model, [0], "linear_attention", seed=3)
    assert mixed.config.mixers == "linear_attention"
    mixed.save(tmp_path / "mixed", tokenizer=tokenizer)
    settings = {**QUICK, "teacher.weight": 2.0}
    for name in SMALL:
        settings.pop(name)
    sources: dict[str, Any] = {"start": tmp_path / "mixed", "teacher": run.path}
    healed = lmzoo.train(None, str(text), tmp_path / "healed", **sources, progress=False, **settings)
    assert healed.path == tmp_path / "healed"
    with pytest.raises(LmzooError, match="nothing to change"):
        lmzoo.transplant(model)
