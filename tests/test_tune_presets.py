"""Tests scripts/tune_presets: it searches for both optimizers, and takes up an earlier search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lmzoo
from lmzoo import registry
from lmzoo.errors import DivergedError
from tests.helpers import load_script

ROOT = Path(__file__).resolve().parent.parent
BACKBONES = ROOT / "lmzoo" / "backbones"
BEST = {"adamw": 0.005, "muon": 0.01}  # Muon's lies at the end of the grid, which is therefore widened
TRIED = {"adamw": (0.0025, 0.005, 0.01), "muon": (0.005, 0.01, 0.02, 0.04)}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield load_script("tune_presets", monkeypatch)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, float]]:
    """The optimizer and the rate of each run that is trained."""
    calls: list[tuple[str, float]] = []

    class Run:
        def __init__(self, loss: float) -> None:
            self.loss = loss

    def train(name: str, data: str, out: Path, *, resume: bool, **settings: Any) -> Run:
        assert (name, data, resume, settings["steps"]) == ("gpt2.tiny", "pycode", True, 150)
        rate = settings["learning_rate"]
        calls.append((settings["optimizer"], rate))
        if rate == 0.04:
            raise DivergedError("diverged")
        return Run(abs(rate - BEST[settings["optimizer"]]) + 1)

    monkeypatch.setattr(lmzoo, "train", train)
    (tmp_path / "gpt2").mkdir()
    return calls


def test_tune_searches_for_both_optimizers_and_goes_on_where_it_stopped(
    script: ModuleType, tmp_path: Path, calls: list[tuple[str, float]]
) -> None:
    script.tune("gpt2", tmp_path, tmp_path / "runs")
    assert sorted(calls) == [(kind, rate) for kind, rates in TRIED.items() for rate in rates]
    script.tune("gpt2", tmp_path, tmp_path / "runs")
    assert len(calls) == 7
    assert script.table(tmp_path).splitlines()[2:] == [
        "| gpt2 | adamw | 0.0025: 1.002, 0.005: **1.000**, 0.01: 1.005 |",
        "| gpt2 | muon | 0.005: 1.005, 0.01: 1.000, 0.02: 1.010, 0.04: inf |",
    ]


def test_tune_keeps_what_a_loss_depends_on_and_searches_again_with_another_budget(
    script: ModuleType, tmp_path: Path, calls: list[tuple[str, float]]
) -> None:
    script.tune("gpt2", tmp_path, tmp_path / "runs")
    file = tmp_path / "gpt2" / "tuning.json"
    content = json.loads(file.read_text())
    assert {"preset", "data", "steps", "batch_size", "hardware", "versions", "commit", "date"} <= content.keys()
    assert content["losses"]["muon"]["0.04"] is None
    file.write_text(json.dumps(content | {"steps": 100}))
    script.tune("gpt2", tmp_path, tmp_path / "runs")
    assert len(calls) == 14


def test_trained_families_are_all_but_counted_ones(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = {name: entry for name, entry in registry.families().items() if (BACKBONES / f"{name}.py").exists()}
    monkeypatch.setattr(registry, "families", lambda: built_in)  # not those that other tests have registered
    assert set(built_in) - set(script.trained_families()) == {"ngram"}
