"""Tests of one cell: it learns, stops and continues bitwise, and survives divergence."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.data.probes.batches import TaskBatches
from lmzoo.probing import cell as module
from lmzoo.probing.cell import train_cell
from lmzoo.probing.plan import Cell, make_cells
from lmzoo.train.events import CheckpointEvent, EvaluatingEvent, Event, StartEvent, StepEvent
from lmzoo.train.signals import Interrupted

CPU = torch.device("cpu")
SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2, "batch_size": 8}


def one_cell(model: str = "gpt2", probe: str = "parity", **settings: Any) -> Cell:
    (cell,) = make_cells([model], probe, "easy", steps=None, seeds=1, settings={"steps": 20, **settings})
    return cell


def ignore(event: Event) -> None:
    """Does nothing."""


def test_train_cell_learns_a_probe_at_the_trained_length_and_beyond(tmp_path: Path) -> None:
    cell = one_cell("gru", d_model=16, n_layers=1, batch_size=64, steps=60, learning_rate=0.03)
    result = train_cell(cell, tmp_path / "run", ignore, CPU)
    assert result.key == cell.key
    assert result.accuracy_trained is not None
    assert result.accuracy_tested is not None
    assert min(result.accuracy_trained, result.accuracy_tested) > 0.99
    assert [step for step, _ in result.curve] == list(range(6, 61, 6))
    assert result.curve[0][1] < 0.9 < result.curve[-1][1] == result.accuracy_trained
    assert result.seconds > 0
    assert result.settings == cell.settings


def test_train_cell_cannot_learn_without_a_memory(tmp_path: Path) -> None:
    result = train_cell(one_cell("bigram", steps=60), tmp_path / "run", ignore, CPU)
    assert result.accuracy_tested is not None
    assert abs(result.accuracy_tested - 0.5) < 0.05


def test_train_cell_sends_its_progress(tmp_path: Path) -> None:
    events: list[Event] = []
    cell = one_cell("bigram", "mqar", batch_size=8)
    train_cell(cell, tmp_path / "run", events.append, CPU)
    start = events[0]
    assert isinstance(start, StartEvent)
    assert start.model == "mqar easy, bigram, seed 1337"
    assert start.tokens_per_step == 8 * 4  # questions
    assert [event.step for event in events if isinstance(event, StepEvent)] == list(range(1, 21))
    assert isinstance(events[-1], EvaluatingEvent)
    assert not any(isinstance(event, CheckpointEvent) for event in events)


def test_train_cell_measures_the_parts(tmp_path: Path) -> None:
    result = train_cell(one_cell("bigram", "needle", batch_size=8, steps=2), tmp_path / "run", ignore, CPU)
    assert list(result.parts) == ["depth 0%", "depth 25%", "depth 50%", "depth 75%", "depth 100%"]
    assert all(0 <= value < 0.2 for value in result.parts.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [7, 20])
def test_train_cell_stopped_by_a_signal_continues_bitwise(number: int, at: int, tmp_path: Path) -> None:
    cell = one_cell(dropout=0.2, **SMALL)
    torch.manual_seed(1)
    whole = train_cell(cell, tmp_path / "whole", ignore, CPU)

    def stop(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == at:
            os.kill(os.getpid(), number)

    torch.manual_seed(2)
    with pytest.raises(Interrupted, match=rf"stopped parity easy, gpt2, seed 1337 after step {at}; the same command"):
        train_cell(cell, tmp_path / "run", stop, CPU)
    events: list[Event] = []
    again = train_cell(cell, tmp_path / "run", events.append, CPU)
    assert [event.step for event in events if isinstance(event, StepEvent)] == list(range(at + 1, 21))
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(whole, seconds=0)


def test_train_cell_is_the_same_again_and_leaves_the_random_state(tmp_path: Path) -> None:
    cell = one_cell(dropout=0.2, **SMALL)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = train_cell(cell, tmp_path / "run", ignore, CPU)
    assert torch.equal(torch.rand(3), wanted)
    steps: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, StepEvent):
            steps.append(event.step)

    for place, done in ((tmp_path / "new", 20), (tmp_path / "run", 0)):  # the second one is trained already
        again = train_cell(cell, place, count, CPU)
        assert dataclasses.replace(again, seconds=0) == dataclasses.replace(first, seconds=0)
        assert len(steps) == done
        steps.clear()
    other = train_cell(one_cell(dropout=0.2, seed=3, **SMALL), tmp_path / "other", ignore, CPU)
    assert other.curve != first.curve


def test_train_cell_that_diverges_is_a_result(tmp_path: Path) -> None:
    result = train_cell(one_cell(learning_rate=1e30, warmup_steps=0, **SMALL), tmp_path / "run", ignore, CPU)
    assert result.status == "diverged"
    assert "try a lower learning_rate" in result.problem
    assert result.accuracy_trained is result.accuracy_tested is None


def test_train_cell_reads_sequences_that_follow_from_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TaskBatches] = []

    class Recorded(TaskBatches):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(module, "TaskBatches", Recorded)
    cell = one_cell("bigram", seed=5, batch_size=8, steps=1)
    train_cell(cell, tmp_path / "run", ignore, CPU)
    (batches,) = made
    assert torch.equal(batches.batch(3)[0], TaskBatches(cell.level.task, 8, 16, seed=5).batch(3)[0])
