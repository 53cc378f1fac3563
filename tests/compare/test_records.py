"""Tests that results.json is read again: as results, as records, and refused if it is something else."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lmzoo.compare.records import load_results, read_results
from lmzoo.compare.results import FILE, to_json, write_results
from lmzoo.errors import InputError
from tests.compare.example import HOSTILE, everything, example, probed_example, two_searches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_results(everything(), tmp_path)
    return tmp_path


def changed(folder: Path, **fields: Any) -> None:
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    (folder / FILE).write_text(json.dumps({**content, **fields}), encoding="utf-8")


@pytest.mark.parametrize(
    "results", [example(), everything(), two_searches()], ids=["one seed", "everything", "two searches"]
)
def test_load_results_returns_what_was_written(results: Any, tmp_path: Path) -> None:
    write_results(results, tmp_path)
    found = load_results(tmp_path)
    assert to_json(found) == to_json(results)
    assert [*found.references, *found.yardsticks] == [*results.references, *results.yardsticks]


def test_load_results_refuses_a_search_of_a_model_that_is_not_there(folder: Path) -> None:
    rows = json.loads((folder / FILE).read_text(encoding="utf-8"))["models"]
    changed(folder, models=[row for row in rows if row["name"] != "gpt2.tiny"], statistics=None)
    with pytest.raises(InputError, match=r"tuning.models: 'gpt2.tiny' is not a model of the comparison"):
        load_results(folder)


def test_load_results_leaves_out_fields_of_newer_versions(folder: Path) -> None:
    changed(folder, invented=[1])
    assert to_json(load_results(folder)) == to_json(everything())


PROTOCOL = dict(everything().protocol)
HALVING = dict(two_searches().tuning["halving"])
CARRIED = PROTOCOL | {"context": "carried", "rows": 2, "longest_row": 250}
PROBES = dict(probed_example().probes)
UNTESTED = {key: value for key, value in PROBES["cells"][0].items() if key != "accuracy_tested"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": 3}, r"schema=3 must be 2"),
        ({"models": 5}, r"models: input should be an instance of sequence"),
        ({"models": [{"name": "a", "status": "best"}]}, r"models.0.status: input should be 'ranked'"),
        ({"corpus": {"name": 1}}, r"corpus.name=1 must be of type str"),
        ({"corpus": dict(example().corpus) | {"overlap": None}}, r"corpus.overlap.text=None must be of type str"),
        ({"corpus": dict(example().corpus) | {"near_duplicates": 3}}, r"near_duplicates.text=None must be of type str"),
        ({"tuning": {"setting": "x"}}, r"tuning.values=None must be of type list"),
        ({"statistics": None, "seeds": "a"}, r"seeds"),
        ({"corpus": dict(example().corpus) | {"entropy_rate": {"nats": "low"}}}, r"entropy_rate.nats='low' must be of"),
        ({"protocol": {"split": "half"}}, r"protocol.documents=None must be of type str"),
        ({"protocol": PROTOCOL | {"context": "carried"}}, r"protocol.rows=None must be of type int"),
        ({"protocol": CARRIED | {"states": {"a": 3}}}, r"protocol.states.a.bytes=None must be of type int"),
        ({"protocol": {}}, r"protocol.targets must be a positive number"),
        ({"yardsticks": [{"name": "xz"}]}, r"yardsticks.0.loss: field required"),
        ({"models": [], "tuning": {}}, r"statistics: they must be of the ranked models"),
        ({"bigram_limits": {"train": 2.0}}, r"bigram_limits.val=None must be of type float"),
        ({"match": {"measure": "params"}}, r"match.target=None must be of type float"),
        ({"match": {"measure": "x", "target": 1, "models": {}}}, r"match.measure='x' must be one of params, "),
        ({"match": {"measure": "flops", "target": 1, "models": {"a": "b"}}}, r"match.models.a.value=None must be of"),
        ({"probes": PROBES | {"cells": [UNTESTED]}}, r"probes.cells.0.accuracy_tested is missing"),
    ],
)
def test_load_results_names_the_field_that_is_wrong(folder: Path, fields: dict[str, Any], message: str) -> None:
    changed(folder, **fields)
    with pytest.raises(InputError, match=message) as caught:
        load_results(folder)
    assert "\n" not in str(caught.value)


def test_load_results_refuses_ranks_that_are_no_range(folder: Path) -> None:
    statistics = json.loads((folder / FILE).read_text())["statistics"]
    statistics["ranks"]["gpt2.tiny"] = [1]
    changed(folder, statistics=statistics)
    with pytest.raises(InputError, match=r"statistics.ranks.gpt2.tiny: \[1\] must be a list of two numbers"):
        load_results(folder)


def test_load_results_refuses_trials_that_the_report_cannot_show(folder: Path) -> None:
    trial = {"chosen": 0.1, "at_end": False, "tried": [{"value": "high"}]}
    changed(folder, tuning=dict(everything().tuning) | {"models": {"gpt2.tiny": trial}})
    with pytest.raises(InputError, match=r"tuning.models.gpt2.tiny.tried.value='high' must be of type float"):
        load_results(folder)
    trial["tried"] = [{"value": 0.1, "run": "a", "status": "trained"}]
    changed(folder, tuning=dict(everything().tuning) | {"models": {"gpt2.tiny": trial}})
    with pytest.raises(InputError, match=r"tuning.models.gpt2.tiny.tried.selection_loss is missing"):
        load_results(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"then": 3}, r"tuning.then=3 must be of type list"),
        ({"then": [{"setting": "warmup_steps"}]}, r"tuning.then.0.values=None must be of type list"),
        (
            {"then": [{"setting": '"><b>', "values": [], "models": {}}]},
            r"""tuning.then.0.setting='"><b>' must be one of learning_rate, warmup_steps, min_learning_rate$""",
        ),
        ({"setting": "../up"}, r"tuning.setting='../up' must be one of learning_rate, "),
        ({"halving": {"parts": [0.5, 1.0]}}, r"tuning.halving.tokens=None must be of type int"),
        ({"halving": {"parts": 1, "tokens": 2}}, r"tuning.halving.parts=1 must be of type list"),
        (
            {"halving": HALVING | {"parts": [1.0]}},
            r"tuning.halving.parts=\[1.0\] must be a list of at least two shares above 0",
        ),
        (
            {"halving": HALVING | {"parts": ["a", 1]}},
            r"tuning.halving.parts=\['a', 1\] must be a list of at least two shares above 0",
        ),
    ],
)
def test_load_results_refuses_searches_that_the_report_cannot_show(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    changed(folder, tuning=dict(two_searches().tuning) | fields)
    with pytest.raises(InputError, match=message):
        load_results(folder)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], r"tried.parts=\[\] must be a list of steps and losses"),
        ([[25]], r"must be a list of steps and losses"),
        ("x", r"must be a list of steps and losses"),
        ([["a", 1.0]], r"tried.parts.step='a' must be of type int"),
        ([[25, "low"]], r"tried.parts.loss='low' must be of type"),
    ],
)
def test_load_results_refuses_parts_that_the_report_cannot_show(folder: Path, parts: Any, message: str) -> None:
    tuning = copy.deepcopy(dict(two_searches().tuning))
    tuning["then"][0]["models"]["gpt2.tiny"]["tried"][0]["parts"] = parts
    changed(folder, tuning=tuning)
    with pytest.raises(InputError, match=message):
        load_results(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"by_position": [{"first": 1, "last": 1, "loss": "x", "tokens": 1}]},
            r"loss='x' must be of type int \| float",
        ),
        ({"by_position": [{"first": 0, "last": 1, "loss": 1.5, "tokens": 1}]}, r"must be a range above 0"),
        ({"by_class": [{"name": 1, "loss": None, "tokens": 0}]}, r"models.best.by_class.name=1 must be of type str"),
        ({"by_class": [{"name": "rare", "tokens": 0}]}, r"models.best.by_class.loss is missing"),
        ({"config": {"precision": []}}, r"models.best.config.precision=\[\] must be of type str"),
        ({"curve": [[0, 4.2], [500]]}, r"models.best.curve: \[500\] must be a list of two numbers"),
        (
            {"cells": [{"seed": 7, "run": "a", "curve": [[1, 2, 3]]}]},
            r"curve: \[1, 2, 3\] must be a list of",
        ),
    ],
)
def test_load_results_refuses_losses_that_the_report_cannot_show(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    changed(folder, models=[{"name": "best", "status": "failed", **fields}], statistics=None)
    with pytest.raises(InputError, match=message):
        load_results(folder)


def test_load_results_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results.json: cannot be read: No such file"):
        load_results(tmp_path)
    for content, message in ((b"{", "line 1"), (b"\xff", "not UTF-8"), (b"[]", "schema=None")):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_results(tmp_path)


def test_read_results_has_a_record_for_each_model_and_seed(folder: Path) -> None:
    records = read_results(folder)
    assert [(record["model"], record["seed"]) for record in records] == [
        *((name, seed) for name in ("gpt2.tiny", "mamba.tiny", HOSTILE) for seed in (7, 8, 9)),
        ("wild", None),
        ("leaky", None),
    ]
    second = records[1]
    assert (second["loss"], second["selection_loss"]) == (pytest.approx(1.508), pytest.approx(1.608))
    assert (second["rank_low"], second["rank_high"]) == (1, 1)
    assert (second["params"], second["state_bytes"], second["run"]) == (112_640, 3000, "runs/gpt2.tiny,seed=8")
    assert (second["model.d_model"], second["train.learning_rate"], second["train.seed"]) == (64, 0.01, 8)
    assert second["status"] == "trained"
    assert (records[-1]["status"], records[-1]["problem"], records[-1]["rank_low"]) == (
        "failed",
        "failed causality",
        None,
    )


def test_read_results_has_flat_values_and_the_same_keys_for_every_seed(folder: Path) -> None:
    records = read_results(folder)
    assert all(isinstance(value, (str, int, float, type(None))) for record in records for value in record.values())
    assert len({tuple(record) for record in records[:9]}) == 1
    assert set(records[-1]) <= set(records[0])


def test_read_results_keeps_no_loss_of_a_seed_for_another(tmp_path: Path) -> None:
    results = everything()
    row = results.models[0]
    lost = dataclasses.replace(row.cells[1], status="diverged", problem="nan", loss=None, selection_loss=None)
    cells = [row.cells[0], lost, row.cells[2]]
    models = [dataclasses.replace(row, status="diverged", cells=cells), *results.models[1:]]
    write_results(dataclasses.replace(results, models=models, statistics=None), tmp_path)
    found = [record for record in read_results(tmp_path) if record["model"] == "gpt2.tiny"]
    assert [record["status"] for record in found] == ["trained", "diverged", "trained"]
    assert (found[1]["loss"], found[1]["problem"]) == (None, "nan")


def test_read_results_refuses_what_is_no_path() -> None:
    with pytest.raises(InputError, match="folder=3 must be a path"):
        read_results(3)  # type: ignore[arg-type]


def test_load_results_refuses_numbers_that_no_figure_can_show(folder: Path) -> None:
    content = json.loads((folder / FILE).read_text())
    content["models"][0]["curve"] = [[0, float("inf")]]
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"results\.json: the number Infinity is not finite$"):
        load_results(folder)
