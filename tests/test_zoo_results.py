"""Tests scripts/zoo_results.py: a family has results when all of its seeds are done, by the protocol of today."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import pytest

from lmzoo.compare.results import CellResult, write_results
from tests.compare.example import everything

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import zoo_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A comparison in which `llama` has one seed of three, `wild` diverged in the second seed, and `leaky` failed."""
    results = everything(("gpt2.1m", "mamba.1m", "llama.1m"))
    gpt2, mamba, llama, wild, leaky = results.models
    llama = dataclasses.replace(llama, cells=llama.cells[:1])
    budget = {**results.budget, "steps": 300, "batch_size": 16, "context_length": 128, "tokens": 614_400}
    gpt2, mamba, wild = (
        dataclasses.replace(model, config={"train": {"optimizer": "muon", "precision": "auto"}, **precision})
        for model, precision in ((gpt2, {"precision": "bf16"}), (mamba, {"precision": "float32"}), (wild, {}))
    )
    cells = [CellResult(seed=7, run="r", loss=2.0), CellResult(seed=8, run="r", status="diverged"), gpt2.cells[2]]
    wild = dataclasses.replace(wild, name="wild.1m", cells=cells)
    models = [gpt2, mamba, llama, wild, leaky]
    results = dataclasses.replace(results, models=models, budget=budget, statistics=None, complete=False)
    write_results(results, tmp_path)
    return tmp_path


def test_family_results_are_of_families_whose_seeds_are_done(folder: Path) -> None:
    found = zoo_results.family_results(folder)
    assert {family: figures["status"] for family, figures in found.items()} == {
        "gpt2": "trained",
        "mamba": "trained",
        "wild": "diverged",
    }
    assert found["wild"]["problem"].startswith("step 3")


def test_family_results_hold_mean_interval_and_search(folder: Path) -> None:
    figures = zoo_results.family_results(folder)["gpt2"]
    assert figures["losses"] == pytest.approx([1.507, 1.508, 1.509])
    assert figures["bits_per_byte"] == pytest.approx(1.508 / math.log(2))
    # 95 % interval of the mean of three values that are 0.001 apart: 4.303 (Student's t) standard errors.
    half = 4.3027 * 0.001 / math.sqrt(3) / math.log(2)
    low, high = figures["bits_per_byte_interval"]
    assert (low, high) == pytest.approx((1.508 / math.log(2) - half, 1.508 / math.log(2) + half), rel=1e-6)
    tried = {"0.005": 2.0, "0.01": 1.7, "0.02": None}
    assert figures["learning_rate"] == {"chosen": 0.01, "at_end": False, "tried": tried}


def test_family_results_hold_the_precision_of_the_machine_and_not_its_setting(folder: Path) -> None:
    found = zoo_results.family_results(folder)
    precisions = {family: figures["precision"] for family, figures in found.items()}
    assert precisions == {"gpt2": "bf16", "mamba": "float32", "wild": None}


def test_is_current_refuses_results_of_another_protocol(folder: Path) -> None:
    figures = zoo_results.family_results(folder)["gpt2"]
    assert zoo_results.is_current(figures)
    assert not zoo_results.is_current(None)
    assert not zoo_results.is_current({"checks": {}}), "checked, and not trained yet"
    assert not zoo_results.is_current({**figures, "schema": 2})
    assert not zoo_results.is_current({**figures, "budget": {**figures["budget"], "seeds": 1}})
