"""Tests of the facts of a run at a checkpoint: settings, text and results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmzoo import configs
from lmzoo.errors import CheckpointError
from lmzoo.runs.facts import run_facts

TABLES = {
    "model": {"name": "gpt2.tiny"},
    "train": {"steps": 40},
    "data": {"data": "pydocs", "corpus_sha256": "ab", "tokenizer": "char"},
    "machine": {"precision": "float32"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the files that are read, evaluated at steps 10 and 20."""
    write(tmp_path, "pydocs")
    (tmp_path / "tokenizer.json").write_text("{}")
    lines = [
        {"step": step, "split": split, "loss": 3 - step / 10, "tokens": 100 * step, "bits_per_byte": 2 - step / 20}
        for step in (10, 20, 30)
        for split in (("train", "val") if step < 30 else ("train",))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def write(run: Path, data: str) -> None:
    tables = {**TABLES, "data": {**TABLES["data"], "data": data}}
    (run / "config.toml").write_text(configs.dump_toml(tables))


@pytest.mark.parametrize(
    ("step", "tokens", "loss"), [(10, 1000, 2.0), (15, 1000, 2.0), (20, 2000, 1.0), (30, 3000, 1.0)]
)
def test_run_facts_are_those_of_the_last_evaluation(run: Path, step: int, tokens: int, loss: float) -> None:
    facts = run_facts(run, step)
    assert (facts.model, facts.train, facts.tokenizer, facts.corpus_sha256) == (
        "gpt2.tiny",
        {"steps": 40},
        "char",
        "ab",
    )
    assert (facts.step, facts.tokens, facts.loss) == (step, tokens, loss)
    assert facts.bits_per_byte == (1.5 if loss == 2 else 1.0)


def test_run_facts_before_any_evaluation_or_without_metrics(run: Path) -> None:
    facts = run_facts(run, 5)
    assert (facts.tokens, facts.loss, facts.bits_per_byte) == (None, None, None)
    (run / "metrics.jsonl").unlink()
    assert run_facts(run, 20).loss is None
    (run / "config.toml").unlink()
    with pytest.raises(CheckpointError, match=r"is not a run: it has no config\.toml$"):
        run_facts(run, 20)


@pytest.mark.parametrize(
    ("data", "name", "on_hub"),
    [
        ("pydocs", "pydocs", False),
        ("hf:org/set,split=train", "org/set", True),
        ("hf:wikitext", "wikitext", True),
        ("/home/me/secret.txt", "", False),
        ("secret.txt", "", False),
        ("hf:/home/me/secret", "", False),
        ("hf:../secret", "", False),
        ("hf:HERE", "", False),
    ],
)
def test_run_facts_name_a_text_that_others_know(
    run: Path, monkeypatch: pytest.MonkeyPatch, data: str, name: str, on_hub: bool
) -> None:
    monkeypatch.chdir(run)
    (run / "HERE").mkdir()
    write(run, data)
    facts = run_facts(run, 20)
    assert (facts.data, facts.on_hub) == (name, on_hub)
