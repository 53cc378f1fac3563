"""Tests `--match`: the widths that a comparison chooses, and what it says about the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lmzoo.compare import compare
from lmzoo.compare.notes import notes
from lmzoo.compare.plan import make_specs
from lmzoo.compare.sizes import match_facts, match_notes, match_specs
from lmzoo.errors import ConfigError
from tests.compare.example import example

SETTINGS = {"batch_size": 4, "context_length": 16}
NAMES = ["bigram", "gpt2.tiny", "lstm.tiny", "mixtral.tiny"]
V = 65


@pytest.mark.parametrize("measure", ["params", "params_non_embedding", "active"])
def test_match_specs_brings_all_models_to_one_size(measure: str) -> None:
    specs = match_specs(make_specs(NAMES, "x.txt", "char", SETTINGS), f"{measure}=400k", V)
    for spec in specs[1:]:
        model = spec.make_model(V, device="meta")
        size = model.num_params(embedding=measure != "params_non_embedding", active=measure == "active")
        assert size == pytest.approx(400_000, rel=0.05), spec.model
    found = match_facts(specs, f"{measure}=400k", V)["models"]
    assert found["gpt2.tiny"]["error"] == found["gpt2.tiny"]["value"] / 400_000 - 1
    assert found["bigram"]["error"] < -0.9, "it has no width and stays as it is"


def test_match_specs_keeps_what_is_set() -> None:
    (spec,) = match_specs(make_specs(["gpt2.tiny"], "x.txt", "char", SETTINGS | {"n_layers": 1}), "params=400k", V)
    assert spec.model_config(V).n_layers == 1  # type: ignore[attr-defined]
    assert spec.config["context_length"] == 16


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("params=9", r"match='params=9': gpt2.tiny has at least [\d,]+ parameters \(at d_model="),
        ("size=9", r"match='size=9': 'size' cannot be matched"),
        ("params=x", r"match='params=x': 'x' must be a number above 0"),
    ],
)
def test_compare_refuses_a_size_out_of_reach(match: str, message: str, text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compare(["gpt2.tiny"], str(text), tmp_path / "out", match=match, settings=SETTINGS | {"steps": 1})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_compare_states_the_residual_mismatch(text: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"steps": 1}
    results = compare(["bigram", "lstm.tiny"], str(text), tmp_path, match="params=20k", settings=settings)
    rows = {row.name: row for row in results.models}
    assert rows["lstm.tiny"].params == pytest.approx(20_000, rel=0.05)
    assert results.match["target"] == 20_000
    assert results.match["models"]["lstm.tiny"]["value"] == rows["lstm.tiny"].params
    assert rows["lstm.tiny"].config["model"]["d_model"] == results.models[1].config["model"]["d_model"]
    note = next(note for note in notes(results) if note.startswith("Sizes are matched to 20.0 k parameters: bigram "))
    assert f"({100 * results.match['models']['lstm.tiny']['error']:+.2g} %)" in note
    assert "Sizes are matched to 20.0 k parameters" in (tmp_path / "table.md").read_text()
    with pytest.raises(ConfigError, match=r"match='params=1k' cannot be given: .*bigram is a finished run"):
        compare([str(tmp_path / "runs" / "bigram")], None, tmp_path / "out", match="params=1k")


def test_match_notes_write_a_large_mismatch_without_an_exponent() -> None:
    models = {"small": {"value": 784, "error": -0.999}, "near": {"value": 1_001_000, "error": 0.001}}
    found = dataclasses.replace(example(), match={"measure": "params", "target": 1e6, "models": models})
    (note,) = match_notes(found)
    assert note == "Sizes are matched to 1.00 M parameters: small 784 (-100 %), near 1.00 M (+0.1 %)."
