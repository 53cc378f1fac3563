"""Tests that timed steps are real steps of the trainer, with all phases, without evaluation or checkpoint."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.bench.steps import PHASES, TrainerSteps, random_store
from lmzoo.model import LanguageModel
from lmzoo.train.config import TrainConfig
from lmzoo.train.optimizer import make_optimizer

QUICK = TrainConfig(batch_size=2, eval_every=1, checkpoint_every=1, warmup_steps=100)
SLOW = 0.05  # seconds


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return lmzoo.create_model("gpt2", vocab_size=65, d_model=32, n_layers=1, context_length=16)


@pytest.fixture
def optimizer(model: LanguageModel) -> torch.optim.Optimizer:
    return make_optimizer(model, QUICK)


@pytest.fixture
def steps(model: LanguageModel, optimizer: torch.optim.Optimizer, tmp_path: Path) -> Iterator[TrainerSteps]:
    store = random_store(tmp_path, 65, 1000)
    steps = TrainerSteps(model, optimizer, QUICK, "float32", store, tmp_path / "float32")
    yield steps
    steps.close()


@pytest.mark.timing
def test_trainer_steps_are_updates_with_the_time_of_each_phase(
    steps: TrainerSteps, model: LanguageModel, optimizer: torch.optim.Optimizer
) -> None:
    optimizer.register_step_pre_hook(lambda *_: time.sleep(SLOW))
    before = model.state_dict()["tokens.weight"].clone()
    began = time.perf_counter()
    seconds = steps(3)
    assert 3 * SLOW < seconds < time.perf_counter() - began - SLOW, "the first step is not counted"
    assert len(steps.phases) == 3
    assert all(tuple(step) == PHASES for step in steps.phases)
    assert seconds == pytest.approx(sum(sum(step.values()) for step in steps.phases))
    assert all(step["optimizer"] > SLOW > step["clip"] > 0 for step in steps.phases)
    assert all(step["rest"] > 0 for step in steps.phases)
    assert not torch.equal(before, model.state_dict()["tokens.weight"])
    steps(2)
    assert len(steps.phases) == 5
    assert {int(value["step"]) for value in optimizer.state.values()} == {4 + 3}


def test_trainer_steps_write_metrics_and_no_checkpoint(steps: TrainerSteps, tmp_path: Path) -> None:
    steps(9)
    assert [path.name for path in (tmp_path / "float32").iterdir()] == ["metrics.jsonl"]
    assert '"step": 10, "split": "train"' in (tmp_path / "float32" / "metrics.jsonl").read_text()


def test_trainer_steps_leave_signals_and_stdout_as_they_were(
    model: LanguageModel, optimizer: torch.optim.Optimizer, tmp_path: Path
) -> None:
    stdout, handlers = sys.stdout, [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    steps = TrainerSteps(model, optimizer, QUICK, "float32", random_store(tmp_path, 65, 1000), tmp_path / "float32")
    steps(1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    steps.close()
    assert sys.stdout is stdout
