"""Tests probes in a comparison: the cells, the results, continuing, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare.comparison import compare
from lmzoo.compare.plan import make_specs
from lmzoo.compare.probes import plan_probes
from lmzoo.compare.records import load_results, read_results
from lmzoo.errors import ConfigError, LmzooError
from lmzoo.train.events import Event, NoteEvent
from tests.compare.small import SETTINGS, lasting, write_text

PROBED: dict[str, Any] = {"probes": "parity", "probe_steps": 4}
NAMES = ["gpt2", "mlp", "ngram"]


def run(folder: Path, names: list[str] = NAMES, **options: Any) -> Any:
    return compare(names, write_text(folder), folder / "out", settings=SETTINGS, **PROBED | options)


def content(folder: Path) -> Any:
    return lasting(json.loads((folder / "out/results.json").read_text(encoding="utf-8")))


def test_compare_probes_the_models_with_their_own_settings(tmp_path: Path) -> None:
    notes: list[str] = []

    def hear(event: Event) -> None:
        notes.extend([event.message] if isinstance(event, NoteEvent) else [])

    options: dict[str, Any] = {"tune": "learning_rate=0.03,0.1", "seeds": 2, "match": "params=3k", "listeners": [hear]}
    found = run(tmp_path, **options)
    cells = [(cell["model"], cell["probe"], cell["seed"]) for cell in found.probes["cells"]]
    assert cells == [(model, "parity", seed) for seed in (1337, 1338) for model in ("gpt2", "mlp")]
    kept = json.loads((tmp_path / "out/probes/probes.json").read_text(encoding="utf-8"))["cells"]
    for cell in kept:
        (row,) = [row for row in found.models if row.name == cell["model"]]
        assert cell["settings"]["model"]["d_model"] == row.config["model"]["d_model"]
        assert cell["settings"]["train"]["learning_rate"] == found.tuning["models"][row.name]["chosen"]
        assert cell["settings"]["train"]["steps"] == 4
    assert any("of which probes about" in note for note in notes)
    records = read_results(tmp_path / "out")
    for cell in found.probes["cells"]:
        (record,) = [r for r in records if (r["model"], r["seed"]) == (cell["model"], cell["seed"])]
        assert record["probe.parity.easy.tested"] == cell["accuracy_tested"] is not None
    assert "| gpt2 |" in (tmp_path / "out/table.md").read_text(encoding="utf-8").partition("parity easy, 16")[2]
    assert load_results(tmp_path / "out").probes == found.probes
    assert run(tmp_path, **options).probes == found.probes, "the chosen rates are known only when it goes on"


def test_compare_continues_probes_and_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, names=["gpt2"])
    whole, raw = content(tmp_path), (tmp_path / "out/results.json").read_bytes()
    assert whole["complete"]
    run(tmp_path, names=["gpt2"])
    assert (tmp_path / "out/results.json").read_bytes() == raw, "a finished comparison gives the same bytes"
    kept = tmp_path / "out/probes/probes.json"
    table = json.loads(kept.read_text(encoding="utf-8"))
    kept.write_text(json.dumps(table | {"cells": []}), encoding="utf-8")
    with monkeypatch.context() as broken:
        broken.setattr("lmzoo.probing.run.run_cells", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, names=["gpt2"])
    assert not content(tmp_path)["complete"]
    run(tmp_path, names=["gpt2"])
    assert content(tmp_path) == whole


def test_compare_refuses_probes_before_anything_is_written(tmp_path: Path) -> None:
    for options in (
        {"probes": "parrity"},
        {"probes": "parity,parity"},
        {"probes": 3},
        {"difficulty": "harder"},
        {"probe_steps": 0},
        {"probes": None},
        {"probes": None, "probe_steps": None, "difficulty": "easy"},
        {"names": ["ngram"]},
    ):
        with pytest.raises(LmzooError) as refused:
            run(tmp_path, **options)
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "out").exists(), options


def test_compare_refuses_probes_of_other_settings(tmp_path: Path) -> None:
    run(tmp_path, names=["gpt2"])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"steps=5, but .* with 4: probe in another directory"):
        run(tmp_path, names=["gpt2"], probe_steps=5)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_cells_have_the_recipe_of_the_text_and_the_lengths_of_the_probe() -> None:
    plan = plan_probes("mqar,parity", "easy,medium", 50)
    assert plan is not None
    (spec,) = make_specs(["gpt2.tiny"], "pydocs", "char", {"steps": 200, "warmup_steps": 20, "optimizer": "muon"})
    cells = plan.cells({"gpt2.tiny+muon": spec}, 2)
    assert len(cells) == 2 * 2 * 2
    for cell in cells:
        assert (cell.model, cell.spec.model) == ("gpt2.tiny+muon", "gpt2.tiny")
        assert cell.spec.config["context_length"] == cell.level.tested
        assert (cell.spec.train.steps, cell.spec.train.warmup_steps, cell.spec.train.optimizer) == (50, 5, "muon")
        assert cell.settings["name"] == "gpt2.tiny"
