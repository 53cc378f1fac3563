"""Tests the loggers: TensorBoard and wandb get all scalars; a missing package is named before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmzoo.errors import ConfigError
from lmzoo.train.events import EndEvent, EvalEvent, Event, StartEvent, StepEvent
from lmzoo.train.loggers import make_logger

EVENTS: list[Event] = [
    StartEvent(
        model="bigram",
        params=9,
        step=0,
        steps=2,
        tokens_per_step=8,
        precision="float32",
        device="cpu",
        path=Path("run"),
        flops_per_step=1e6,
    ),
    StepEvent(1, 2.5, 0.1, 1.5, 8, 0.5, 16.0),
    EvalEvent(1, 2.25, 3.0, 8, 0.5),
    StepEvent(2, 2.0, 0.05, 1.0, 16, 1.0, 16.0),
    EndEvent(),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside tensorboard
def test_tensorboard_logger_writes_the_curves(tmp_path: Path) -> None:
    logger = make_logger("tensorboard", tmp_path)
    assert not any(tmp_path.iterdir()), "nothing is written before training starts"
    for event in EVENTS:
        logger(event)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = EventAccumulator(str(tmp_path / "tensorboard"))
    written.Reload()
    assert [(e.step, e.value) for e in written.Scalars("train/loss")] == [(1, 2.5), (2, 2.0)]
    assert [(e.step, e.value) for e in written.Scalars("val/bits_per_byte")] == [(1, 3.0)]


def test_wandb_logger_sends_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service cannot be reached from a test: a fake module records what would be sent."""
    sent: list[Any] = []
    run = SimpleNamespace(
        log=lambda scalars, step: sent.append((step, scalars)), finish=lambda: sent.append("finished")
    )
    module = SimpleNamespace(init=lambda **settings: sent.append(settings) or run)
    monkeypatch.setitem(sys.modules, "wandb", module)  # type: ignore[arg-type]
    logger = make_logger("wandb", tmp_path / "my-run")
    for event in EVENTS:
        logger(event)
    assert sent[0] == {"project": "lmzoo", "name": "my-run", "config": {"model": "bigram", "params": 9, "steps": 2}}
    assert sent[2] == (1, {"val/loss": 2.25, "val/bits_per_byte": 3.0})
    assert sent[-1] == "finished"


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_make_logger_names_a_missing_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]  # what Python does for one not there
    with pytest.raises(ConfigError) as caught:
        make_logger(name, tmp_path)
    assert str(caught.value) == f"logger='{name}' is not installed: pip install '.[{name}]' in the checkout"
