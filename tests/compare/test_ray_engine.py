"""Tests a comparison on a local Ray with two workers, of which one is killed."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmzoo.compare import compare, ray_engine, schedule
from lmzoo.errors import ConfigError
from lmzoo.train.events import CellsEvent, Event
from tests.compare.small import NAMES, SETTINGS, work_on_short_samples, write_text, written
from tests.compare.test_processes import command_of, descendants


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # of Ray, about its own future
        warnings.simplefilter("ignore")
        yield


@pytest.mark.distributed
def test_ray_engine_does_a_job_again_whose_worker_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_text(tmp_path)
    compare(NAMES, text, tmp_path / "alone", seeds=2, settings=SETTINGS)
    monkeypatch.setattr(ray_engine, "work", work_on_short_samples)
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    killed: list[int] = []
    at_once: list[int] = []

    def kill(event: Event) -> None:
        if not isinstance(event, CellsEvent):
            return
        at_once.append(sum(cell.state == "running" for cell in event.cells))
        if not killed and any(cell.step for cell in event.cells if cell.state == "running"):
            worker = next(pid for pid in descendants(os.getpid()) if command_of(pid).startswith("ray::work"))
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    monkeypatch.chdir(tmp_path)
    options = {"seeds": 2, "settings": SETTINGS | {"steps": 24}, "workers": 2, "engine": "ray"}
    compare(NAMES, "sea.txt", "out", listeners=[kill], **options)
    assert killed
    assert max(at_once) == 2
    found, alone = written(tmp_path / "out"), written(tmp_path / "alone")
    for tables in (found, alone):
        for row in tables["models"]:
            for cell in row["cells"]:
                del cell["at_once"]
    assert found == alone


def test_ray_engine_names_the_address_that_it_cannot_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(ConfigError, match="engine='ray': cannot connect to Ray"):
        compare(["bigram"], write_text(tmp_path), tmp_path / "out", settings={"steps": 1}, engine="ray")
