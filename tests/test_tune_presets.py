"""Tests scripts/tune_presets: it searches for both optimizers, and takes up an earlier search."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lmzoo
from lmzoo.errors import DivergedError

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "tune_presets"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("tune_presets", str(SCRIPT))
    spec = spec_from_loader("tune_presets", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_tune_searches_for_both_optimizers_and_goes_on_where_it_stopped(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, float]] = []
    best = {"adamw": 0.005, "muon": 0.01}  # Muon's lies at the end of the grid, which is therefore widened

    class Run:
        def __init__(self, loss: float) -> None:
            self.loss = loss

    def train(name: str, data: str, out: Path, *, resume: bool, **settings: Any) -> Run:
        assert (name, data, resume, settings["steps"]) == ("gpt2.tiny", "pycode", True, 7)
        rate = settings["learning_rate"]
        calls.append((settings["optimizer"], rate))
        if rate == 0.04:
            raise DivergedError("diverged")
        return Run(abs(rate - best[settings["optimizer"]]) + 1)

    monkeypatch.setattr(lmzoo, "train", train)
    script.tune("gpt2.tiny", 7, tmp_path)
    tried = {"adamw": (0.0025, 0.005, 0.01), "muon": (0.005, 0.01, 0.02, 0.04)}
    assert sorted(calls) == [(kind, rate) for kind, rates in tried.items() for rate in rates]
    script.tune("gpt2.tiny", 7, tmp_path)
    assert len(calls) == 7
    assert script.table(tmp_path).splitlines()[2:] == [
        "| gpt2.tiny | adamw | 0.0025: 1.002, 0.005: **1.000**, 0.01: 1.005 |",
        "| gpt2.tiny | muon | 0.005: 1.005, 0.01: 1.000, 0.02: 1.010, 0.04: inf |",
    ]


def test_trained_families_are_all_but_counted_ones(script: ModuleType) -> None:
    assert set(lmzoo.registry.families()) - set(script.trained_families()) == {"ngram"}
