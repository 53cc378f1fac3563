"""Tests that the activation statistics are read from the runs of a comparison."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from lmzoo.compare.activations import Activations, read_activations
from lmzoo.compare.results import Results
from lmzoo.runs.metrics import METRICS_FILE
from tests.compare.example import example, model


def line(tokens: int, split: str = "val", **statistics: Any) -> str:
    values = {"step": tokens, "split": split, "loss": 2.0, "tokens": tokens, "seconds": 1.0}
    return json.dumps({**values, "activations": statistics}) + "\n"


def write(folder: Path, name: str, *lines: str) -> None:
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / METRICS_FILE).write_text("".join(lines))


def compared(*names: str) -> Results:
    return dataclasses.replace(example(), models=[model(name, 1.5 + n / 10) for n, name in enumerate(names)])


def rms(tokens: int, values: Any, split: str = "val") -> str:
    return line(tokens, split, residual_rms=values)


def test_read_activations_has_a_row_for_each_evaluation_and_block(tmp_path: Path) -> None:
    write(tmp_path, "a", rms(1, [9.0], split="train"), rms(1, [0.5, 1]), rms(2, [0.5, 2.5]))
    assert read_activations(compared("a", "gone"), tmp_path).residual_rms == {
        "a": [
            {"tokens": 1, "block": 0, "rms": 0.5},
            {"tokens": 1, "block": 1, "rms": 1},
            {"tokens": 2, "block": 0, "rms": 0.5},
            {"tokens": 2, "block": 1, "rms": 2.5},
        ]
    }


def test_read_activations_has_the_largest_logit_of_each_evaluation(tmp_path: Path) -> None:
    write(tmp_path, "a", *(line(n, largest_logit=value) for n, value in enumerate([3, None, 5.5, "x", -1, [4]])))
    write(tmp_path, "once", line(1, largest_logit=3.0))
    assert read_activations(compared("a", "once"), tmp_path) == Activations(
        largest_logit={"a": [{"tokens": 0, "logit": 3}, {"tokens": 2, "logit": 5.5}]}
    )


def test_read_activations_has_the_state_of_the_last_evaluation_that_has_one(tmp_path: Path) -> None:
    norms = [[[1, 9.0], [2, 9.0]], [[1, 2.0], [2, None], [4, 3.5], [0, 1.0], [8], "x"], [[1, None], [2, 1.0]], None]
    write(tmp_path, "a", *(line(n, state_norm=norm) for n, norm in enumerate(norms)))
    write(tmp_path, "once", line(1, state_norm=norms[0]))
    assert read_activations(compared("a", "once"), tmp_path) == Activations(
        state_norm={
            "a": [{"position": 1, "norm": 2.0}, {"position": 4, "norm": 3.5}],
            "once": [{"position": 1, "norm": 9.0}, {"position": 2, "norm": 9.0}],
        }
    )


def test_read_activations_has_the_ends_of_the_load_over_all_layers(tmp_path: Path) -> None:
    loads = [[[0.9, 1.1], [0.2, 1.5], [0.4, 3.0]], [[0, 8.0], [1, 1]], [], "x", [[None, 2.0]]]
    write(tmp_path, "a", *(line(n, router_load=load) for n, load in enumerate(loads)))
    assert read_activations(compared("a"), tmp_path) == Activations(
        router_load={
            "a": [
                {"tokens": 0, "least": 0.2, "least_layer": 2, "most": 3.0, "most_layer": 3},
                {"tokens": 1, "least": 0, "least_layer": 1, "most": 8.0, "most_layer": 1},
            ]
        }
    )


def test_read_activations_has_the_gradient_norm_of_each_role(tmp_path: Path) -> None:
    norms = [{"matrix": 0.5, "vector": 2, "other": 1.0}, {"vector": 0.0, "matrix": None, "head": 3.0}, [1.0], None]
    write(tmp_path, "a", *(line(n, grad_norms=norm) for n, norm in enumerate(norms)))
    assert read_activations(compared("a"), tmp_path) == Activations(
        grad_norms={
            "a": [
                {"tokens": 0, "role": "matrix", "norm": 0.5},
                {"tokens": 0, "role": "vector", "norm": 2},
                {"tokens": 1, "role": "head", "norm": 3.0},
            ]
        }
    )


def test_read_activations_leaves_out_what_cannot_be_drawn(tmp_path: Path) -> None:
    write(tmp_path, "one", rms(1, [1.0]))
    write(tmp_path, "none", rms(1, None), rms(2, "x"), rms(3, {"a": 1}), '{"split": "val"}\n')
    write(tmp_path, "odd", rms(1, [0.0, True, None, "1", [2], -1, 1.0]), rms(2, [float("inf"), 3.0, float("nan")]))
    assert read_activations(compared("one", "none", "odd"), tmp_path) == Activations(
        residual_rms={"odd": [{"tokens": 1, "block": 6, "rms": 1.0}, {"tokens": 2, "block": 1, "rms": 3.0}]}
    )
    (tmp_path / "runs" / "dir" / METRICS_FILE).mkdir(parents=True)
    assert read_activations(compared("dir"), tmp_path) == Activations()


def test_read_activations_shows_a_model_that_diverged_but_none_that_failed(tmp_path: Path) -> None:
    write(tmp_path, "a", rms(1, [1.0]), rms(2, [9.0]))
    for status, found in (("diverged", ["a"]), ("failed", [])):
        results = dataclasses.replace(example(), models=[dataclasses.replace(model("a", 1.5), status=status)])
        assert list(read_activations(results, tmp_path).residual_rms) == found
