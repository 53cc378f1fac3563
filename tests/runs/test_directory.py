"""Tests config.toml, which records every setting for resuming, and directories that cannot be used."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path

import pytest

from lmzoo import configs
from lmzoo.data.corpora import load_corpus
from lmzoo.errors import CheckpointError, ConfigError, DivergedError
from lmzoo.runs.directory import FORMAT, check_directory, keeps_near_duplicates, read_tables, text_hashes
from lmzoo.runs.run import evaluate_run, load_run, train_run
from lmzoo.train.config import TrainConfig
from lmzoo.train.signals import Interrupted
from tests.runs.conftest import DERIVED, MakeSpec
from tests.runs.test_resume import interrupt_at


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


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        ("lmzoo = 2", "lmzoo = 3", r"lmzoo=3 must be at most 2: a newer version"),
        ("lmzoo = 2", 'lmzoo = "2"', r"lmzoo='2' must be a positive integer"),
        ("lmzoo = 2", "lmzoo = true", r"lmzoo=True must be a positive integer"),
        ("lmzoo = 2", "lmzoo = 0", r"lmzoo=0 must be a positive integer"),
        ("world_size = 1", 'world_size = "1"', r"machine\.world_size='1' must be a positive integer"),
    ],
)
def test_read_tables_refuses_another_format(
    tmp_path: Path, small_spec: MakeSpec, line: str, changed: str, message: str
) -> None:
    train_run(small_spec("bigram"), tmp_path / "run")
    change(tmp_path / "run", (line, changed))
    with pytest.raises(CheckpointError, match=f"config.toml: {message}"):
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
