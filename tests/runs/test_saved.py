"""Tests of loading and evaluating what is saved: runs, checkpoints, and folders written by `model.save`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.data.text import scan
from lmzoo.data.tokenizers import TOKENIZER_FILE, ByteTokenizer
from lmzoo.errors import CheckpointError, DataError
from lmzoo.runs.directory import read_tables, write_tables
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.runs.saved import (
    evaluate_run,
    evaluate_run_positions,
    is_run,
    load_model_and_tokenizer,
    load_run,
    text_to_read,
)
from lmzoo.runs.validation import VALIDATION_FILE, read_validation
from lmzoo.storage import checkpoints

MakeSpec = Callable[..., RunSpec]


@pytest.fixture
def run(tmp_path: Path, small_spec: MakeSpec) -> Path:
    train_run(small_spec(steps=4), tmp_path / "run")
    return tmp_path / "run"


def test_load_run_loads_everything_that_is_saved(run: Path, tmp_path: Path, text: Path) -> None:
    model, tokenizer, tables = load_run(run)
    model.save(tmp_path / "saved", tokenizer=tokenizer)
    loss = evaluate_run(run).loss
    checkpoint = checkpoints.path_of(run, 4)
    for path in (run / "checkpoints", checkpoint, tmp_path / "saved"):
        found = load_run(path)
        assert found.tokenizer.sha256 == tokenizer.sha256
        assert found.model.config == model.config
        assert found.tables == ({} if path.name == "saved" else tables)
        assert evaluate_run(path, str(text)).loss == loss
    assert is_run(run)
    assert not is_run(tmp_path / "saved")


def test_load_model_and_tokenizer_loads_a_model_without_one(run: Path, tmp_path: Path) -> None:
    load_run(run).model.save(tmp_path / "saved")
    for path in (run, checkpoints.path_of(run, 4)):
        found = load_model_and_tokenizer(path)[1]
        assert found is not None
        assert found.sha256 == load_run(run).tokenizer.sha256
    assert load_model_and_tokenizer(tmp_path / "saved")[1] is None
    assert load_model_and_tokenizer(tmp_path / "saved", run)[1] is not None


def test_load_run_takes_the_tokenizer_of_a_model_without_one(run: Path, tmp_path: Path, text: Path) -> None:
    load_run(run).model.save(tmp_path / "saved")
    copied = shutil.copytree(checkpoints.path_of(run, 4), tmp_path / "copied")
    for path in (tmp_path / "saved", copied):
        with pytest.raises(DataError, match=r"is a saved model without a tokenizer: name one with --tokenizer PATH"):
            load_run(path)
        for tokenizer in (run, run / TOKENIZER_FILE):
            assert evaluate_run(path, str(text), tokenizer).loss == evaluate_run(run).loss
    ByteTokenizer().save(tmp_path / "byte.json")
    with pytest.raises(CheckpointError, match=r"the model has vocab_size=\d+, its tokenizer 256"):
        load_run(tmp_path / "saved", tmp_path / "byte.json")
    with pytest.raises(DataError, match=r"byte.json differs from the tokenizer of the run"):
        load_run(run, tmp_path / "byte.json")


def test_load_run_refuses_other_folders(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    absent = "there is no such run or checkpoint$"
    for path, message in (
        (tmp_path, r"is not a run: it has no config\.toml$"),
        (tmp_path / "absent", absent),
        (loop, r"is not a run: it has no config\.toml$"),
        (loop / "x", absent),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_run(path)


def test_evaluate_run_needs_a_text_for_a_saved_model(run: Path, tmp_path: Path) -> None:
    model, tokenizer, _ = load_run(run)
    model.save(tmp_path / "saved", tokenizer=tokenizer)
    assert text_to_read(tmp_path / "saved") is None
    with pytest.raises(DataError, match=r"saved: is a saved model, which has no text of its own: name one with --data"):
        evaluate_run(tmp_path / "saved")


def test_evaluate_run_does_not_read_the_training_split_of_another_text(run: Path, tmp_path: Path, text: Path) -> None:
    content = text.read_text()[:1000]
    other, same = tmp_path / "other.txt", tmp_path / "same.txt"
    other.write_text("\u00e6" + content)  # never seen in training, and not evaluated
    same.write_text(content[0] + content)
    assert evaluate_run(run, str(other)).loss == evaluate_run(run, str(same)).loss
    other.write_text(content + "\u00e6")
    with pytest.raises(DataError, match=r"of the val split of other\.txt was never seen"):
        evaluate_run(run, str(other))


def test_evaluate_run_isolates_documents_as_the_training_or_as_told(
    tmp_path: Path, small_spec: MakeSpec, documents: str
) -> None:
    """With the kept tokens, or the text of the run, which must not have changed."""
    spec, run = replace(small_spec("bigram", documents="isolated"), data=documents), tmp_path / "run"
    result = train_run(spec, run)
    assert evaluate_run(run).loss == pytest.approx(result.loss, abs=1e-6)
    assert text_to_read(run) is text_to_read(run, "isolated") is None
    assert text_to_read(run, "joined") == documents
    assert evaluate_run(run, documents="joined").tokens > evaluate_run(run).tokens
    assert evaluate_run(run, documents).tokens == evaluate_run(run).tokens
    parts = evaluate_run_positions(run)
    assert sum(part.tokens for part in parts) == evaluate_run(run).tokens
    joined = tmp_path / "joined"
    train_run(replace(small_spec("bigram"), data=documents), joined)
    assert evaluate_run(joined, documents="isolated").tokens == evaluate_run(run).tokens
    (tmp_path / "documents" / "000.txt").write_text("another beginning", encoding="utf-8")
    assert evaluate_run(run).loss == pytest.approx(result.loss, abs=1e-6)
    with pytest.raises(DataError, match="its SHA-256 is"):
        evaluate_run(joined, documents="isolated")


def test_evaluate_run_reads_the_text_without_near_duplicates(tmp_path: Path, small_spec: MakeSpec, copied: str) -> None:
    """A run is evaluated on the text that it was trained with; an older run, which records no hash, on all files."""
    run, older = tmp_path / "run", tmp_path / "older"
    result = train_run(replace(small_spec("bigram"), data=copied), run)
    split = load_corpus(copied).val
    tables = read_tables(run)
    assert tables["data"]["validation_sha256"] == scan(split.spans).sha256
    assert read_validation(run, 99).n_bytes == split.n_bytes
    (run / VALIDATION_FILE).unlink()
    again = evaluate_run(run)
    assert again.loss == pytest.approx(result.loss, abs=1e-6)
    assert again.bits_per_byte == pytest.approx(again.loss * (again.tokens + 1) / split.n_bytes / math.log(2))
    shutil.copytree(run, older)
    del tables["data"]["validation_sha256"]
    write_tables(older, tables)
    whole = load_corpus(copied, keep_near_duplicates=True).val
    assert evaluate_run(older).tokens == whole.n_chars - 1 > again.tokens
    joined = tmp_path / "joined.txt"
    joined.write_bytes("".join(load_corpus(copied).chunks()).encode())
    tables = read_tables(run)
    write_tables(run, {**tables, "data": tables["data"] | {"data": str(joined)}})
    with pytest.raises(DataError, match=r"joined.txt: the text is that of the run, but its files are divided in"):
        evaluate_run(run)
