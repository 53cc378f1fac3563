"""Tests what a resumed run may change: recorded settings hold, and a difference is named."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import pytest

from lmzoo import configs
from lmzoo.errors import ConfigError, DataError
from lmzoo.runs.directory import read_tables
from lmzoo.runs.resuming import read_spec, require_same
from lmzoo.runs.run import evaluate_run, load_run, train_run
from lmzoo.train.config import ResolvedTrainConfig, TrainConfig
from lmzoo.train.signals import Interrupted
from tests.helpers import assert_same, tensors
from tests.runs.conftest import MakeSpec
from tests.runs.test_directory import change
from tests.runs.test_resume import interrupt_at, losses


def test_train_run_resumes_with_the_recorded_settings(
    tmp_path: Path, derived_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules that derive settings have changed since the run began: it still uses the recorded ones."""
    spec, run = derived_spec(), tmp_path / "run"
    train_run(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(5)])
    before = (run / "config.toml").read_text()

    def other_rules(self: TrainConfig) -> ResolvedTrainConfig:
        derived = {"min_learning_rate": 0.0, "warmup_steps": 15, "eval_every": 7, "checkpoint_every": 3}
        given = {name: value for name, value in configs.to_dict(self).items() if value is not None}
        return ResolvedTrainConfig(**derived | given)

    monkeypatch.setattr(TrainConfig, "resolved", other_rules)
    train_run(spec, run, resume=True)
    assert (run / "config.toml").read_text() == before
    assert losses(run) == losses(tmp_path / "whole")
    assert_same(tensors(run, 20), tensors(tmp_path / "whole", 20))
    train_run(spec, tmp_path / "new")
    assert losses(tmp_path / "new") != losses(run), "with the changed rules the losses differ"


def test_read_spec_names_the_file_of_a_damaged_setting_of_the_model(tmp_path: Path, derived_spec: MakeSpec) -> None:
    run = tmp_path / "run"
    train_run(derived_spec(), run)
    for line, damaged, message in (
        ("n_layers = 1", 'n_layers = "1"', "n_layers='1': input should be a valid integer"),
        ("n_layers = 1", "layers = 1", "layers=1 is not a setting of GPT2Config"),
        ("vocab_size = 29", "", "vocab_size must be given"),
    ):
        before = (run / "config.toml").read_text()
        change(run, (line, damaged))
        with pytest.raises(ConfigError, match=f"run/config.toml: {message}"):
            read_spec(run, {})
        (run / "config.toml").write_text(before)


def test_require_same_names_a_given_setting_that_differs(tmp_path: Path, derived_spec: MakeSpec) -> None:
    train_run(derived_spec(), tmp_path / "run")
    train_run(derived_spec(warmup_steps=1, eval_every=2), tmp_path / "run", resume=True)
    for name, value, recorded in (("warmup_steps", 3, "1"), ("min_learning_rate", 0.0, "0.001"), ("steps", 10, "20")):
        spec = derived_spec()
        spec = dataclasses.replace(spec, train=dataclasses.replace(spec.train, **{name: value}))
        with pytest.raises(ConfigError, match=f"train.{name}={value}, but the run in .* was made with {recorded}:"):
            train_run(spec, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("data", "python", "note"),
    [
        ("pydocs", "3.11.2", r" \(pydocs is built from the library of Python, which is 3.11.9 here and was 3.11.2\)$"),
        ("pydocs", "3.11.9", "another directory$"),
        ("sea.txt", "3.11.2", "another directory$"),
    ],
)
def test_require_same_names_the_python_version_of_a_built_in_corpus(
    tmp_path: Path, derived_spec: MakeSpec, data: str, python: str, note: str
) -> None:
    train_run(derived_spec(), tmp_path / "run")
    tables = read_tables(tmp_path / "run")
    assert tables["machine"]["python"] == platform.python_version()
    before, now = (
        {**tables, "data": tables["data"] | {"data": data, "corpus_sha256": sha256}, "machine": {"python": version}}
        for sha256, version in (("ab", python), ("cd", "3.11.9"))
    )
    with pytest.raises(DataError, match=rf"data.corpus_sha256='cd', but the run in .* was made with 'ab': .*{note}"):
        require_same(tmp_path / "run", before, now)


def test_require_resumable_refuses_a_run_of_version_0_1_0(tmp_path: Path, derived_spec: MakeSpec) -> None:
    """Its config.toml has no version number and no derived settings; the run can still be loaded and evaluated."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(derived_spec(), run, listeners=[interrupt_at(5)])
    version = read_tables(run)["machine"]["lmzoo"]
    lines = {
        "min_learning_rate = 0.001",
        "warmup_steps = 1",
        "eval_every = 2",
        "checkpoint_every = 2",
        "eval_tokens = 0",
    }
    change(run, ("lmzoo = 2", ""), *((line, "") for line in lines), (f'lmzoo = "{version}"', 'lmzoo = "0.1.0"'))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    message = r"run: was made by lmzoo 0\.1\.0, which did not record every setting: it cannot be resumed \(.*sampled"
    with pytest.raises(ConfigError, match=message) as caught:
        train_run(derived_spec(), run, resume=True)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert load_run(run).model.config.d_model == 16
    assert evaluate_run(run).tokens > 0
