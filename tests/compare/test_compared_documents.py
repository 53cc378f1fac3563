"""Tests comparisons on isolated documents, and on texts of which near-duplicates are left out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from lmzoo.compare import compare
from lmzoo.compare.table import print_results
from lmzoo.data.corpora import load_corpus
from lmzoo.errors import ConfigError, DataError
from lmzoo.runs.directory import read_tables, write_tables
from lmzoo.runs.run import evaluate_run
from tests.compare.small import write_text

TRAINING = {"steps": 30, "batch_size": 4, "context_length": 16, "learning_rate": 3e-2, "eval_every": 10}


@pytest.fixture(scope="module")
def folder_of_documents(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("documents")
    text = Path(write_text(tmp_path_factory.mktemp("text"), lines=250))
    for number, document in enumerate(text.read_text(encoding="utf-8").split("\n")):
        (folder / f"{number:03}.txt").write_text(document, encoding="utf-8")
    return str(folder)


def test_compare_with_isolated_documents(folder_of_documents: str, tmp_path: Path) -> None:
    """The same rows for models and n-grams, in training and evaluation, and it is said; also on halves, for a rate."""
    settings = TRAINING | {"documents": "isolated"}
    results = compare(["bigram", "ngram"], folder_of_documents, tmp_path / "out", settings=settings)
    assert results.budget["documents"] == "isolated"
    assert results.complete
    rows = {row.name: row for row in results.models}
    assert results.budget["tokens"] == rows["bigram"].tokens < 30 * 4 * 16
    assert rows["bigram"].curve[-1][0] == pytest.approx(rows["bigram"].tokens, rel=0.1)
    assert rows["bigram"].curve[-1][0] == rows["ngram"].curve[-1][0], "the same tokens"
    for name, row in rows.items():
        evaluated = evaluate_run(tmp_path / "out" / "runs" / name)
        assert row.loss == pytest.approx(evaluated.loss, abs=1e-6)
        documents = len(load_corpus(folder_of_documents).val.documents)
        assert evaluated.tokens == results.corpus["val_tokens"] - documents
    fitted = next(line for line in results.references if line.name == "5-gram")
    assert fitted.loss == pytest.approx(rows["ngram"].loss, abs=1e-4), "both counted the same rows"
    assert "documents isolated" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "Documents are isolated" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    del settings["learning_rate"]
    grid, out = "learning_rate=0.03,0.06", tmp_path / "tuned"
    tuned = compare(["bigram"], folder_of_documents, out, settings=settings, tune=grid)
    assert tuned.tuning["report"]["documents"] > 1
    assert tuned.models[0].loss != rows["bigram"].loss


def test_compare_refuses_a_stride_with_isolated_documents(folder_of_documents: str, tmp_path: Path) -> None:
    settings = TRAINING | {"documents": "isolated"}
    with pytest.raises(ConfigError, match="stride=4 cannot be given: the rows of isolated documents do not overlap"):
        compare(["bigram"], folder_of_documents, tmp_path / "out", settings=settings, stride=4)
    assert not (tmp_path / "out").exists()


def test_compare_needs_the_same_documents_for_all_models(folder_of_documents: str, tmp_path: Path) -> None:
    settings = TRAINING | {"bigram.documents": "isolated"}
    with pytest.raises(ConfigError, match="all models of a comparison have the same documents"):
        compare(["bigram", "ngram"], folder_of_documents, tmp_path / "out", settings=settings)


def test_compare_leaves_near_duplicates_out(copied: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are no part of any evaluation, and what was left out is stated."""
    settings, out = TRAINING | {"steps": 4}, tmp_path / "out"
    results = compare(["bigram"], copied, out, settings=settings)
    corpus = load_corpus(copied)
    removed = corpus.near_duplicates
    assert removed is not None
    assert results.corpus["near_duplicates"] == dataclasses.asdict(removed) | {"text": str(removed)}
    assert removed.documents == 2
    assert (
        results.corpus["val_bytes"] == corpus.val.n_bytes < load_corpus(copied, keep_near_duplicates=True).val.n_bytes
    )
    (row,) = results.models
    tokens = corpus.val.n_chars
    assert row.bits_per_byte == pytest.approx(row.loss * tokens / corpus.val.n_bytes / math.log(2))
    for name in ("table.md", "report.html", "results.json"):
        assert str(removed) in (out / name).read_text(encoding="utf-8")
    print_results(results, out)
    assert "2 documents (" in " ".join(capsys.readouterr().out.split())
    (again,) = compare([str(out / "runs" / "bigram")], None, tmp_path / "again").models
    assert again.loss == row.loss


def test_compare_deals_what_is_left_to_the_halves(copied: str, tmp_path: Path) -> None:
    settings = {key: value for key, value in TRAINING.items() if key != "learning_rate"} | {"steps": 2}
    results = compare(["bigram"], copied, tmp_path / "out", settings=settings, tune="learning_rate=0.03,0.06")
    halves = [results.tuning[half]["bytes"] for half in ("selection", "report")]
    assert sum(halves) == pytest.approx(load_corpus(copied).val.n_bytes, abs=2)


def test_compare_does_not_continue_runs_with_near_duplicates(copied: str, tmp_path: Path) -> None:
    """Of a comparison from before they were removed; as finished runs, they are compared as they are."""
    settings, out = TRAINING | {"steps": 4}, tmp_path / "out"
    compare(["bigram"], copied, out, settings=settings)
    run = out / "runs" / "bigram"
    tables = read_tables(run)
    del tables["data"]["validation_sha256"]
    write_tables(run, tables)
    with pytest.raises(DataError, match=r"data.validation_sha256='.*', but the run in .* was made with None"):
        compare(["bigram"], copied, out, settings=settings)
    results = compare([str(run)], None, tmp_path / "again")
    assert results.corpus["near_duplicates"] is None
    assert results.corpus["val_bytes"] == load_corpus(copied, keep_near_duplicates=True).val.n_bytes
