"""Tests of the plan: which cells there are, with which settings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lmzoo.errors import ConfigError, LmzooError, UnknownModelError
from lmzoo.probing.plan import Cell, make_cells, parse_names


def cells(*models: str, probes: str = "parity", difficulty: str = "easy", **options: Any) -> list[Cell]:
    given: dict[str, Any] = {"steps": None, "seeds": 1, "settings": {}} | options
    return make_cells(models, probes, difficulty, **given)


def test_make_cells_combines_models_levels_and_seeds() -> None:
    found = cells("bigram", "gpt2.tiny", probes="s3, parity", difficulty="easy,hard", seeds=2, settings={"seed": 5})
    first = [
        (model, probe, level)
        for probe in ("s3", "parity")
        for level in ("easy", "hard")
        for model in ("bigram", "gpt2.tiny")
    ]
    assert [cell.key for cell in found] == [(*rest, seed) for seed in (5, 6) for rest in first]
    assert all(cell.seed == cell.key[-1] for cell in found)
    assert len(cells("bigram", probes="all", difficulty="all")) == 30


def test_make_cells_gives_all_models_the_same_budget_and_enough_positions() -> None:
    for cell in cells("bigram", "gpt2.tiny", "llama.tiny", difficulty="medium"):
        assert (cell.spec.train.steps, cell.spec.train.batch_size) == (2000, 64)
        assert cell.spec.model_config(2).context_length == cell.level.tested == 128
        assert cell.tokens == 2000 * 64 * cell.level.trained
    (cell,) = cells("bigram", settings={"batch_size": 3, "train.steps": 7})
    assert (cell.spec.train.steps, cell.spec.train.batch_size) == (7, 3)
    assert cells("bigram", steps=9)[0].spec.train.steps == 9


def test_cell_settings_hold_everything_that_decides_the_result() -> None:
    (cell,) = cells("gpt2.tiny", settings={"d_model": 32})
    settings = cell.settings
    assert settings["task"] == {"kind": "CyclicGroup", "order": 2}
    assert (settings["trained_length"], settings["tested_length"]) == (16, 64)
    assert settings["model"]["d_model"] == 32
    assert settings["train"]["learning_rate"] == cell.spec.train.learning_rate
    others = [
        *cells("gpt2.tiny"),
        *cells("gpt2.tiny", settings={"d_model": 32, "learning_rate": 0.5}),
        *cells("gpt2.tiny", settings={"d_model": 32, "seed": 3}),
        *cells("gpt2.tiny", difficulty="hard", settings={"d_model": 32}),
        *cells("gpt2.tiny", probes="addition", settings={"d_model": 32}),
    ]
    assert len({each.settings_hash for each in [cell, *others]}) == 6
    assert cells("gpt2.tiny", settings={"d_model": 32})[0].settings_hash == cell.settings_hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": "party"}, "probes='party' is not a probe; did you mean 'parity'?"),
        ({"difficulty": "esy"}, "difficulty='esy' is not a difficulty; did you mean 'easy'?"),
        ({"probes": "s3,s3"}, "probes='s3,s3' must hold different names with commas between them, or 'all'"),
        ({"probes": ""}, "probes='' must hold different names"),
        ({"seeds": 0}, "seeds=0 must be an integer in [1, 1000]"),
        ({"settings": {"context_length": 8}}, "context_length=8 cannot be set: the probe decides it"),
        ({"settings": {"model.context_length": 8}}, "model.context_length=8 cannot be set: the probe decides it"),
        ({"settings": {"vocab_size": 8}}, "vocab_size=8 cannot be set: the probe decides it"),
        ({"settings": {"steps": 8}, "steps": 3}, "steps=8 cannot be set: the option steps is given"),
        ({"settings": {"batch_size": 0}}, "batch_size=0 must be a positive integer"),
        ({"settings": {"d_modle": 8}}, "d_modle=8 is not a setting of"),
    ],
)
def test_make_cells_refuses_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LmzooError) as caught:
        cells("gpt2.tiny", **options)
    assert message in str(caught.value)


def test_make_cells_refuses_models_that_cannot_be_trained_or_found() -> None:
    with pytest.raises(ConfigError, match="model 'ngram' is fitted to counts of a text, not trained"):
        cells("bigram", "ngram")
    with pytest.raises(UnknownModelError, match="did you mean 'bigram'"):
        cells("bigramm")
    with pytest.raises(ConfigError, match="named twice"):
        cells("bigram", "bigram")


def test_parse_names_reads_a_list() -> None:
    assert parse_names(" a ,b", "probes", ["c"]) == ["a", "b"]
    assert parse_names("all", "probes", ["c", "d"]) == ["c", "d"]
    with pytest.raises(ConfigError, match="probes='a,,b' must hold"):
        parse_names("a,,b", "probes", [])
