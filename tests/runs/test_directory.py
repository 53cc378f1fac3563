"""Tests config.toml, which records every setting for resuming, and directories that cannot be used."""

from __future__ import annotations

import dataclasses
import os
import platform
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmzoo import configs
from lmzoo.data.corpora import load_corpus
from lmzoo.errors import CheckpointError, ConfigError, DataError, DivergedError
from lmzoo.runs.directory import FORMAT, check_directory, keeps_near_duplicates, read_tables, require_same, text_hashes
from lmzoo.runs.run import RunSpec, evaluate_run, load_run, train_run
from lmzoo.train.config import ResolvedTrainConfig, TrainConfig
from lmzoo.train.signals import Interrupted
from tests.helpers import assert_same, tensors
from tests.runs.test_resume import interrupt_at, losses

MakeSpec = Callable[..., RunSpec]
DERIVED = ("min_learning_rate", "warmup_steps", "eval_every", "checkpoint_every")


@pytest.fixture
def derived_spec(small_spec: MakeSpec) -> MakeSpec:
    """A spec in which four training settings are derived from the others."""

    def make(**settings: Any) -> RunSpec:
        spec = small_spec(**{"steps": 20, "learning_rate": 0.01} | settings)
        return dataclasses.replace(
            spec, train=dataclasses.replace(spec.train, **{name: None for name in DERIVED if name not in settings})
        )

    return make


def change(run: Path, *changes: tuple[str, str]) -> None:
    """Replace lines of config.toml."""
    file = run / "config.toml"
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert f"{old}\n" in text
        text = text.replace(f"{old}\n", new and f"{new}\n")
    file.write_text(text, encoding="utf-8")


def test_make_tables_records_every_setting(tmp_path: Path, derived_spec: MakeSpec) -> None:
    train_run(derived_spec(), tmp_path / "run")
    tables = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert tables["lmzoo"] == FORMAT == 2
    assert tables["train"].keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert "none" not in tables["train"].values()
    assert [tables["train"][name] for name in DERIVED] == [0.001, 1, 2, 2]
    model, _, _ = load_run(tmp_path / "run")
    assert tables["model"] == {"name": "gpt2", **configs.to_dict(model.config)}


def test_make_tables_records_a_none_of_the_model(tmp_path: Path, small_spec: MakeSpec) -> None:
    """A None that is a value of its own is recorded as "none", and a resumed run reads it back."""
    spec = small_spec("llama", d_model=16, n_layers=1, n_heads=2)
    with pytest.raises(Interrupted):
        train_run(spec, tmp_path / "run", listeners=[interrupt_at(5)])
    table = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["model"]
    assert table["window"] == "none"
    del table["name"]
    assert configs.build(type(spec.model_config(9)), table) == load_run(tmp_path / "run").model.config
    train_run(spec, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"model.window=8, but the run in .* was made with 'none'"):
        train_run(dataclasses.replace(spec, config={**spec.config, "window": 8}), tmp_path / "run", resume=True)


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


@pytest.mark.parametrize("number", ["3", '"2"', "0"])
def test_read_tables_refuses_another_format(tmp_path: Path, small_spec: MakeSpec, number: str) -> None:
    train_run(small_spec("bigram"), tmp_path / "run")
    change(tmp_path / "run", ("lmzoo = 2", f"lmzoo = {number}"))
    with pytest.raises(CheckpointError, match=r"config.toml: lmzoo=.* must be at most 2: a newer version"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("line", "damaged", "message"),
    [
        ("warmup_steps = 1", 'warmup_steps = "few"', "warmup_steps='few': input should be a valid integer"),
        ("warmup_steps = 1", "warmup_steps = 99", r"warmup_steps=99 must be in \[0, steps=20\]"),
        ("warmup_steps = 1", "", "warmup_steps must be given"),
        ("seed = 1337", "sead = 1337", "sead=1337 is not a setting"),
    ],
)
def test_train_config_names_the_file_and_the_damaged_setting(
    tmp_path: Path, derived_spec: MakeSpec, line: str, damaged: str, message: str
) -> None:
    train_run(derived_spec(), tmp_path / "run")
    change(tmp_path / "run", (line, damaged))
    with pytest.raises(ConfigError, match=f"run/config.toml: {message}"):
        train_run(derived_spec(), tmp_path / "run", resume=True)


def test_check_directory_takes_new_empty_and_known_directories(tmp_path: Path) -> None:
    check_directory(tmp_path / "new" / "deep", "run", found=False)
    check_directory(tmp_path, "run", found=False)
    (tmp_path / "left").write_text("by a kill")
    check_directory(tmp_path, "run", found=False, leftovers={"left"})
    with pytest.raises(ConfigError, match="exists, is not empty, and holds no comparison"):
        check_directory(tmp_path, "comparison", found=False)
    check_directory(tmp_path, "comparison", found=True)
    with pytest.raises(ConfigError, match="exists and is not a directory"):
        check_directory(tmp_path / "left", "run", found=False)
    with pytest.raises(ConfigError, match=r"cannot be written: .*left is read-only or not a directory"):
        check_directory(tmp_path / "left" / "run", "run", found=False)


def test_check_directory_refuses_a_read_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ConfigError, match=r"cannot be written: .* is read-only or not a directory"):
        check_directory(tmp_path / "run", "run", found=False)


@pytest.mark.parametrize("name", ["a" * 256, "b/" * 2500 + "c", "nul\0name", "\udcff", "new/" + "a" * 300])
def test_check_directory_refuses_names_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_spec: MakeSpec, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"out=.* (is too long|must be a name)"):
        train_run(small_spec(), name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pipe", "link to nothing"])
def test_check_directory_refuses_what_is_no_directory(tmp_path: Path, small_spec: MakeSpec, kind: str) -> None:
    out = tmp_path / "out"
    os.mkfifo(out) if kind == "pipe" else out.symlink_to("nothing")
    with pytest.raises(ConfigError, match="exists and is not a directory"):
        train_run(small_spec(), out)
    assert len(list(tmp_path.iterdir())) == 1


def test_find_run_begins_anew_what_has_no_checkpoint(tmp_path: Path, small_spec: MakeSpec) -> None:
    """A run that diverged at its first step does not block the next try with other settings."""
    with pytest.raises(DivergedError, match="nothing was saved before"):
        train_run(small_spec(learning_rate=1e38), tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoints" / ".step-00000004.writing").mkdir()
    result = train_run(small_spec(), tmp_path / "run")
    assert load_run(tmp_path / "run").tables["train"]["learning_rate"] != 1e38
    assert result.loss < 10
    with pytest.raises(ConfigError, match="holds a run already"):
        train_run(small_spec(), tmp_path / "run")


@pytest.mark.parametrize("name", ["sheep\x7f.txt", "she\u202eep.txt", "sheep\n.txt"])
def test_write_tables_records_any_name_of_a_text(tmp_path: Path, text: Path, small_spec: MakeSpec, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.read_bytes())
    spec = dataclasses.replace(small_spec("bigram"), data=str(path))
    result = train_run(spec, tmp_path / "run")
    assert read_tables(tmp_path / "run")["data"]["data"] == str(path)
    assert evaluate_run(tmp_path / "run").loss == pytest.approx(result.loss)


def test_read_tables_has_a_limit(tmp_path: Path, small_spec: MakeSpec) -> None:
    train_run(small_spec("bigram"), tmp_path / "run")
    with (tmp_path / "run" / "config.toml").open("a") as file:
        file.write("# " + "x" * (1 << 20))
    with pytest.raises(ConfigError, match="larger than"):
        read_tables(tmp_path / "run")


def test_text_hashes_have_that_of_the_validation_split_if_documents_were_removed(copied: str) -> None:
    whole, corpus = load_corpus(copied, keep_near_duplicates=True), load_corpus(copied)
    assert text_hashes(whole) == {"corpus_sha256": corpus.sha256}
    assert text_hashes(corpus) == {"corpus_sha256": corpus.sha256, "validation_sha256": corpus.val_sha256}
    assert keeps_near_duplicates({"data": text_hashes(whole)})
    assert not keeps_near_duplicates({"data": text_hashes(corpus)})
