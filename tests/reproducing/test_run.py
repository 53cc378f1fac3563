"""Tests a small recipe from end to end: figures, files, what continues, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.errors import ConfigError
from lmzoo.probing.results import read_results
from lmzoo.reproducing.recipe import Claim, Recipe
from lmzoo.reproducing.run import reproduce
from lmzoo.reproducing.verdicts import Reproduction
from lmzoo.train.events import Event, StartEvent, StepEvent
from lmzoo.train.signals import Interrupted
from tests.compare.small import write_text
from tests.reproducing.small import small, text_of


def run(recipe: Recipe, out: Path, **options: Any) -> tuple[Reproduction, list[Event]]:
    events: list[Event] = []
    listeners = [events.append, *options.pop("listeners", [])]
    return reproduce(recipe, out, workers=options.pop("workers", 1), listeners=listeners, **options), events


def test_reproduce_trains_all_cells_and_judges_them(tmp_path: Path) -> None:
    found, events = run(small(), tmp_path / "out")
    recurrence, table = found.verdicts
    assert found.holds
    assert recurrence.value is not None
    assert recurrence.value > 0.99
    assert table.value is not None
    assert abs(table.value - 0.5) < 0.05
    assert sum(isinstance(event, StartEvent) for event in events) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["probes", "reproduced.json"]
    content = json.loads((tmp_path / "out" / "reproduced.json").read_text())
    assert (content["recipe"], content["complete"], content["holds"]) == ("small", True, True)
    again, events = run(small(), tmp_path / "out")
    assert again.verdicts == found.verdicts
    assert not any(isinstance(event, StartEvent) for event in events)


def test_reproduce_stopped_by_ctrl_c_continues(tmp_path: Path) -> None:
    whole, _ = run(small(), tmp_path / "whole")

    def stop(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(small(), tmp_path / "out", listeners=[stop])
    content = json.loads((tmp_path / "out" / "reproduced.json").read_text())
    assert (content["complete"], content["holds"], content["verdicts"]) == (False, False, [])
    again, events = run(small(), tmp_path / "out")
    assert sum(isinstance(event, StepEvent) for event in events) == 40 + 60
    assert again.verdicts == whole.verdicts


def test_reproduce_makes_several_cells_at_once(tmp_path: Path) -> None:
    found, events = run(small(), tmp_path, workers=2)
    assert found.holds
    assert not any(isinstance(event, StartEvent) for event in events)


def test_reproduce_compares_models_on_a_text(tmp_path: Path) -> None:
    claim = Claim(text="no worse", model="gru", minus="lstm", high=9.0)
    recipe = small(models=[], tasks=[], claims=[claim], text=text_of(write_text(tmp_path)))
    found, _ = run(recipe, tmp_path / "out")
    assert found.holds
    assert len(found.verdicts[0].seeds) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["reproduced.json", "text"]
    again, events = run(recipe, tmp_path / "out")
    assert again.verdicts == found.verdicts
    assert not any(isinstance(event, StepEvent) for event in events)


def test_reproduce_refuses_bad_input_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for recipe, options, message in (
        ("parrity", {}, "name='parrity' is not a recipe"),
        (small(), {"workers": 0}, "workers=0 must be an integer"),
        (small(), {"device": "cuda"}, "device='cuda' needs a GPU"),
        (small(), {"device": "tpu"}, "device='tpu' must be 'cpu' or 'cuda'"),
    ):
        with pytest.raises(ConfigError, match=message):
            reproduce(recipe, out, **options)
    assert not out.exists()
    (tmp_path / "novel.txt").write_text("text")
    with pytest.raises(ConfigError, match="exists, is not empty, and holds no reproduction"):
        reproduce(small(), tmp_path)


def test_reproduce_refuses_the_directory_of_another_recipe(tmp_path: Path) -> None:
    run(small(claims=small().claims[1:], models=small().models[1:]), tmp_path)
    before = read_results(tmp_path / "probes")
    with pytest.raises(ConfigError, match=r"name='other', but .* holds 'small': give another --out"):
        run(small(name="other", seeds=2), tmp_path)
    assert read_results(tmp_path / "probes") == before
    with pytest.raises(ConfigError, match=r"steps=70, but .* with 60"):
        reproduce(small(settings={"steps": 70, "batch_size": 64}), tmp_path)


def test_reproduce_refuses_a_cpu_for_a_text_that_would_use_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    claim = Claim(text="no worse", model="gru", minus="lstm", high=9.0)
    with pytest.raises(ConfigError, match="device='cpu': small also compares models on a text"):
        reproduce(small(claims=[claim], text=text_of("sea.txt")), tmp_path / "out", device="cpu")
