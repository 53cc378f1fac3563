"""Tests that the residual RMS is read from the runs of a comparison, and drawn for each model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare.activations import PALEST, read_activations, residual_rms, ticks
from lmzoo.compare.results import Results
from lmzoo.runs.metrics import METRICS_FILE
from tests.compare.example import example, model


def line(tokens: int, residual_rms: Any, split: str = "val") -> str:
    values = {"step": tokens, "split": split, "loss": 2.0, "tokens": tokens, "seconds": 1.0}
    return json.dumps({**values, "activations": {"residual_rms": residual_rms}}) + "\n"


def write(folder: Path, name: str, *lines: str) -> None:
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / METRICS_FILE).write_text("".join(lines))


def compared(*names: str) -> Results:
    return dataclasses.replace(example(), models=[model(name, 1.5 + n / 10) for n, name in enumerate(names)])


def test_read_activations_has_a_row_for_each_evaluation_and_block(tmp_path: Path) -> None:
    write(tmp_path, "a", line(1, [9.0], split="train"), line(1, [0.5, 1]), line(2, [0.5, 2.5]))
    assert read_activations(compared("a", "gone"), tmp_path) == {
        "a": [
            {"tokens": 1, "block": 0, "rms": 0.5},
            {"tokens": 1, "block": 1, "rms": 1},
            {"tokens": 2, "block": 0, "rms": 0.5},
            {"tokens": 2, "block": 1, "rms": 2.5},
        ]
    }


def test_read_activations_leaves_out_what_cannot_be_drawn(tmp_path: Path) -> None:
    write(tmp_path, "one", line(1, [1.0]))
    write(tmp_path, "none", line(1, None), line(2, "x"), line(3, {"a": 1}), '{"split": "val"}\n')
    write(tmp_path, "odd", line(1, [0.0, True, None, "1", [2], -1, 1.0]), line(2, [float("inf"), 3.0, float("nan")]))
    assert read_activations(compared("one", "none", "odd"), tmp_path) == {
        "odd": [{"tokens": 1, "block": 6, "rms": 1.0}, {"tokens": 2, "block": 1, "rms": 3.0}]
    }
    (tmp_path / "runs" / "dir" / METRICS_FILE).mkdir(parents=True)
    assert read_activations(compared("dir"), tmp_path) == {}


def test_read_activations_shows_a_model_that_diverged_but_none_that_failed(tmp_path: Path) -> None:
    write(tmp_path, "a", line(1, [1.0]), line(2, [9.0]))
    for status, found in (("diverged", ["a"]), ("failed", [])):
        results = dataclasses.replace(example(), models=[dataclasses.replace(model("a", 1.5), status=status)])
        assert list(read_activations(results, tmp_path)) == found


def test_residual_rms_draws_models_with_the_same_axes_and_their_colors() -> None:
    blocks = {name: [{"tokens": n, "block": b, "rms": n + b} for n in (1, 2) for b in range(3)] for name in ("c", "a")}
    blocks["a"].append({"tokens": 8, "block": 0, "rms": 40.0})
    figures = residual_rms(compared("a", "b", "c"), blocks)
    assert [(figure.name, list(figure.models)) for figure in figures] == [
        ("activations-1", ["a"]),
        ("activations-2", ["c"]),
    ]
    one, two = (figure.spec["encoding"] for figure in figures)
    assert one["x"]["scale"]["domain"] == two["x"]["scale"]["domain"] == [0, 8]
    assert one["y"] == two["y"]
    low, high = one["y"]["scale"]["domain"]
    assert low < 1 < 40 < high
    assert (one["color"], two["color"]) == ({"value": "var(--s0)"}, {"value": "var(--s2)"})
    assert one["opacity"]["scale"] == {"domain": [0, 2], "range": [PALEST, 1]}
    assert residual_rms(compared("a"), {}) == []


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.04, 4.6, [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]),
        (0.3, 900.0, [1.0, 10.0, 100.0]),
        (1.0, 1.5, [1.0]),
    ],
)
def test_ticks_are_powers_of_ten_and_their_multiples(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high) == found
