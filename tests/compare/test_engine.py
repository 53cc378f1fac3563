"""Tests how a job ends: with a value, the problem of a plug-in, an error that can be sent, or an interrupt."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmzoo import registry
from lmzoo.compare.engine import Job, Worker, execute, lost, make_setup
from lmzoo.compare.grid import make_cell
from lmzoo.compare.measure import Measurer
from lmzoo.data.corpora import load_corpus
from lmzoo.data.tokenizers import train_tokenizer
from lmzoo.errors import ConfigError
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.spec import RunSpec
from lmzoo.train.events import NoteEvent

PLUGIN = """
import lmzoo
from lmzoo.backbones.bigram import Bigram

@lmzoo.register_model("engine_test")
class EngineTest(Bigram):
    pass
"""


@pytest.fixture
def measurer(text: Path) -> Measurer:
    corpus = load_corpus(str(text))
    tokenizer = train_tokenizer("char", corpus.chunks("train"))
    return Measurer(PreparedData(corpus, tokenizer), tokenizer.encode("The "), [print], False)


@pytest.fixture
def job(small_spec: Callable[..., RunSpec], tmp_path: Path) -> Job:
    spec = small_spec("bigram")
    return Job("check", make_cell(tmp_path, spec, spec, "bigram"))


def raising(error: BaseException) -> Callable[..., Any]:
    def check(self: Measurer, cell: object) -> None:
        raise error

    return check


def test_execute_returns_errors_and_raises_interrupts(
    measurer: Measurer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measurer, "check", raising(ConfigError("steps=0 is wrong")))
    assert str(execute(measurer, job).error) == "steps=0 is wrong"
    monkeypatch.setattr(Measurer, "check", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        execute(measurer, job)


def test_worker_does_what_can_be_sent_to_it(measurer: Measurer, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, sent = pickle.loads(pickle.dumps((make_setup(measurer, 1), job)))
    assert setup.measurer.listeners == ()
    worker = Worker(setup)
    assert pickle.loads(pickle.dumps(worker.do(sent))).value == measurer.check(job.cell)

    def check(self: Measurer, cell: object) -> None:
        self.listeners[0](NoteEvent("a damaged checkpoint is skipped"))
        warnings.warn("careful", stacklevel=1)
        raise LocalError("broken")

    class LocalError(Exception):  # cannot be pickled
        pass

    monkeypatch.setattr(Measurer, "check", check)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = worker.do(job)
    assert list(done.notes) == [
        f"{job.cell.label}: {note}" for note in ("a damaged checkpoint is skipped", "warning: careful")
    ]
    assert "LocalError: broken" in str(pickle.loads(pickle.dumps(done)).error)


def test_make_setup_names_the_plugins_of_models(
    measurer: Measurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    file = tmp_path / "engine_test.py"
    file.write_text(PLUGIN)
    registry.load_plugin(str(file))
    assert str(file) in make_setup(measurer, 1).plugins
    assert not any(source.startswith("lmzoo.") for source in make_setup(measurer, 1).plugins)


def test_worker_returns_a_setup_with_open_tokens(measurer: Measurer, job: Job) -> None:
    worker = Worker(make_setup(measurer, 1))
    store = worker._measurer.data.store
    assert store is not None
    assert dataclasses.replace(worker._measurer.data, store=None) == dataclasses.replace(measurer.data, store=None)


def test_lost_names_the_run(job: Job) -> None:
    assert "the process that made runs/bigram was killed 3 times" in str(lost(job.label))
