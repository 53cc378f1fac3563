"""Tests optimizers as an axis: a row for each model and optimizer, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lmzoo
from lmzoo.compare.optimizers import parse_optimizers, with_optimizers
from lmzoo.compare.papers import bibtex
from lmzoo.compare.tune import Grid, parse_tune
from lmzoo.errors import ConfigError
from lmzoo.runs.run import read_tables
from lmzoo.runs.spec import make_spec

GRIDS = parse_tune("learning_rate=0.01,0.02")


def test_parse_optimizers_names_each_once() -> None:
    assert parse_optimizers("muon, adamw", GRIDS, {"steps": 3}) == ["muon", "adamw"]


@pytest.mark.parametrize(
    ("text", "grids", "settings", "message"),
    [
        ("adam,muon", GRIDS, {}, "optimizers='adam,muon': 'adam' is not an optimizer"),
        ("adamw", GRIDS, {}, "optimizers='adamw' needs two different optimizers at least"),
        ("adamw,adamw,muon", GRIDS, {}, "needs two different optimizers at least"),
        ("adamw,muon", parse_tune("warmup_steps"), {}, "needs tune='learning_rate'"),
        ("adamw,muon", GRIDS, {"gpt2.optimizer": "muon"}, "gpt2.optimizer='muon' cannot be given: optimizers="),
    ],
)
def test_parse_optimizers_names_bad_input(text: str, grids: list[Grid], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_optimizers(text, grids, settings)
    assert message in str(raised.value)


def test_with_optimizers_has_one_row_for_models_that_all_optimizers_train_alike(text: Path) -> None:
    specs = [make_spec(name, str(text), overrides={"context_length": 16}) for name in ("mlp", "bigram", "ngram")]
    found = with_optimizers(specs, ["adamw", "muon"])
    assert {name: spec.train.optimizer for name, spec in found.items()} == {
        "mlp+adamw": "adamw",
        "mlp+muon": "muon",
        "bigram": "adamw",  # has no matrices
        "ngram": "adamw",  # has no gradients
    }
    assert {spec.model for spec in found.values()} == {"mlp", "bigram", "ngram"}


def test_compare_tunes_each_model_with_each_optimizer(text: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 4, "batch_size": 2, "context_length": 8, "eval_every": 4, "d_model": 16}
    results = lmzoo.compare(
        ["mlp"],
        str(text),
        tmp_path,
        tune="learning_rate=0.01,0.02",
        optimizers="adamw,muon",
        progress=False,
        **settings,
    )
    assert {row.name for row in results.ranked} == {"mlp+adamw", "mlp+muon"} == set(results.tuning["models"])
    for row in results.ranked:
        trained = read_tables(tmp_path / row.run)["train"]
        assert trained["optimizer"] == row.config["train"]["optimizer"] == row.name.partition("+")[2]
        assert trained["learning_rate"] == results.tuning["models"][row.name]["chosen"]
    assert "bengio" in bibtex(results).lower(), "the papers of the family"
