"""Tests the trainer as a generator of events: their order, and leaving its loop at any event."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmzoo
from lmzoo.bench.steps import random_store
from lmzoo.data.batches import BatchStream
from lmzoo.data.isolated_batches import IsolatedBatches
from lmzoo.distributed.ranks import ALONE
from lmzoo.layers.stack import outermost_stacks
from lmzoo.losses import IGNORE_INDEX, cross_entropy
from lmzoo.storage import checkpoints
from lmzoo.train import malloc
from lmzoo.train.checkpoint import TrainingState
from lmzoo.train.config import TrainConfig
from lmzoo.train.events import CheckpointEvent, EvalEvent, EvaluatingEvent, SavingEvent, StepEvent
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.phases import PHASES
from lmzoo.train.signals import SIGNALS, Interrupted
from lmzoo.train.trainer import Trainer

MakeTrainer = Callable[..., Trainer]

SIZES: dict[str, dict[str, int]] = {"gpt2": {"d_model": 8, "n_layers": 2, "n_heads": 2}, "ngram": {"capacity": 300}}


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    """Makes trainers with the same weights and data, which differ only in settings and directory."""
    store = random_store(tmp_path, 17, 500)
    isolated = replace(store.train, ends=np.cumsum([3, 19, 6, 7, 2, 13] * 10))

    def make(run: Path = tmp_path / "run", family: str = "gpt2", **settings: Any) -> Trainer:
        config = TrainConfig(**{"steps": 6, "batch_size": 2, "eval_every": 3, "eval_tokens": 40} | settings).resolved()
        generator = torch.Generator().manual_seed(1)
        model = lmzoo.create_model(family, vocab_size=17, context_length=8, generator=generator, **SIZES[family])
        return Trainer(
            model=model,
            parallel_model=model,
            optimizer=make_optimizer(model, config),
            batches=IsolatedBatches(isolated, config.batch_size, 8, config.seed)
            if config.documents == "isolated"
            else BatchStream(store.train.tokens, config.batch_size, 8, config.seed),
            val=store.val,
            config=config,
            precision="float32",
            run=run,
            state=TrainingState(),
            ranks=ALONE,
        )

    return make


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_train_yields_events_in_order(make_trainer: MakeTrainer) -> None:
    events = list(make_trainer(checkpoint_every=2).train())
    names = [f"{type(event).__name__.removesuffix('Event')} {event.step}" for event in events]
    assert names[:6] == ["Step 1", "Step 2", "Saving 2", "Checkpoint 2", "Step 3", "Evaluating 3"]
    assert names[6:12] == ["Eval 3", "Step 4", "Saving 4", "Checkpoint 4", "Step 5", "Step 6"]
    assert names[12:] == ["Evaluating 6", "Eval 6", "Saving 6", "Checkpoint 6"]


def test_train_fits_a_model_without_parameters_once(make_trainer: MakeTrainer) -> None:
    """On each sequence of the steps once; more steps than sequences add nothing."""
    trainer = make_trainer(family="ngram", checkpoint_every=2, grad_accumulation=2)
    names = [f"{type(event).__name__.removesuffix('Event')} {event.step}" for event in trainer.train()]
    assert names == ["Evaluating 6", "Eval 6", "Saving 6", "Checkpoint 6"]
    assert trainer.state.tokens == 6 * 2 * 2 * 8
    again = make_trainer(family="ngram")
    again.model.fit(torch.from_numpy(again.batches.first_windows(24).astype("int64")))
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], tensor)
    longer = make_trainer(trainer.run.with_name("longer"), family="ngram", steps=10_000)
    assert [type(event) for event in longer.train()][-1] is CheckpointEvent
    assert longer.state.tokens == 61 * 8, "the text has 61 sequences"


def test_train_measures_evaluations_apart_from_training(make_trainer: MakeTrainer) -> None:
    trainer, training = make_trainer(), 0.0
    for event in trainer.train():
        if isinstance(event, StepEvent):
            training += sum(event.phases.values())
        if isinstance(event, EvaluatingEvent):
            assert (event.step, event.done, event.total) == (trainer.state.step, 0, 40)
            time.sleep(0.05)
    assert trainer.state.eval_seconds >= 2 * 0.05
    assert trainer.state.seconds == pytest.approx(training)


def test_train_yields_saving_before_and_checkpoint_after_the_save(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(checkpoint_every=1)
    for event in trainer.train():
        steps = [step for step, _ in checkpoints.saved(trainer.run)]
        if isinstance(event, SavingEvent):
            assert event.step not in steps
        if isinstance(event, CheckpointEvent):
            assert steps[0] == event.step


def test_train_measures_the_phases_of_a_step(make_trainer: MakeTrainer) -> None:
    steps = [event for event in make_trainer(grad_accumulation=2).train() if isinstance(event, StepEvent)]
    for event in steps:
        assert tuple(event.phases) == PHASES
        assert all(seconds > 0 for seconds in event.phases.values())
    assert steps[-1].seconds == pytest.approx(sum(sum(event.phases.values()) for event in steps))


@pytest.mark.parametrize("by_error", [False, True])
def test_train_restores_everything_when_its_loop_is_left(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, by_error: bool
) -> None:
    """Signal handlers, activation checkpointing, and the setting of the memory allocator."""
    given_back: list[bool] = []
    monkeypatch.setattr(malloc, "give_back_memory", lambda: given_back.append(True))
    before = handlers()
    trainer = make_trainer(gradient_checkpointing=True)
    trainer.keep_freed_memory = True

    def leave() -> None:
        for event in trainer.train():
            assert all(stack.checkpoints for stack in outermost_stacks(trainer.model))
            assert handlers() != before
            assert not given_back
            if event.step == 2:
                if by_error:
                    raise ZeroDivisionError
                break

    if by_error:
        with pytest.raises(ZeroDivisionError):
            leave()
    else:
        leave()
    assert handlers() == before
    assert given_back == [True]
    assert not any(stack.checkpoints for stack in outermost_stacks(trainer.model))
    assert trainer.state.step == 2
    assert not trainer.run.exists()


def test_train_continues_after_its_loop_was_left(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Left after a step and entered again, it ends bitwise equal: the evaluation that was due is made."""
    whole, parts = make_trainer(tmp_path / "whole"), make_trainer(tmp_path / "parts")
    expected = [event for event in whole.train() if isinstance(event, StepEvent | EvalEvent)]
    found: list[StepEvent | EvalEvent] = []
    while parts.state.step < 6 or parts.state.val_step != 6:
        for event in parts.train():
            if isinstance(event, StepEvent | EvalEvent):
                found.append(event)
                if isinstance(event, StepEvent):
                    break
    assert [(type(event), event.step, event.loss) for event in found] == [
        (type(event), event.step, event.loss) for event in expected
    ]
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_train_raises_interrupted_when_the_step_is_saved(make_trainer: MakeTrainer) -> None:
    trainer, before = make_trainer(), handlers()

    def interrupt() -> None:
        for event in trainer.train():
            if isinstance(event, StepEvent) and event.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped after step 2"):
        interrupt()
    assert [step for step, _ in checkpoints.saved(trainer.run)] == [2]
    assert handlers() == before


def test_trainer_without_a_validation_split_does_not_evaluate(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.val = None
    kinds = [type(event) for event in trainer.train()]
    assert kinds == [StepEvent] * 3 + [SavingEvent, CheckpointEvent] + [StepEvent] * 3 + [SavingEvent, CheckpointEvent]
    assert trainer.state.val_loss is None


@pytest.mark.parametrize("accumulation", [1, 3])
def test_train_weighs_all_targets_of_isolated_documents_equally(make_trainer: MakeTrainer, accumulation: int) -> None:
    """The loss and the gradient are of the mean over all targets of a step, not a mean of the means of its batches."""
    trainer = make_trainer(documents="isolated", grad_accumulation=accumulation, grad_clip=0.0, steps=2)
    batches = [trainer.batches.batch(number) for number in range(2 * accumulation)]
    counts = [int((targets_BT != IGNORE_INDEX).sum()) for _, targets_BT in batches]
    assert len(set(counts)) > 1
    assert len({idx_BT.shape[1] for idx_BT, _ in batches}) > 1
    logits = [trainer.model(idx_BT).logits.flatten(0, 1) for idx_BT, _ in batches[:accumulation]]
    targets = torch.cat([targets_BT.flatten() for _, targets_BT in batches[:accumulation]])
    loss = cross_entropy(torch.cat(logits)[targets != IGNORE_INDEX], targets[targets != IGNORE_INDEX])
    norm = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, [*trainer.model.parameters()])]).norm()
    first, second = [event for event in trainer.train() if isinstance(event, StepEvent)]
    assert first.loss == pytest.approx(loss.item(), abs=1e-5)
    assert first.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    assert (first.tokens, second.tokens) == (sum(counts[:accumulation]), sum(counts)), "without padding"
    assert second.tokens_per_s == pytest.approx(second.tokens / second.seconds)


def test_train_fits_a_model_without_parameters_on_isolated_documents(make_trainer: MakeTrainer) -> None:
    trainer, again = (make_trainer(family="ngram", documents="isolated", steps=1000) for _ in range(2))
    list(trainer.train())
    rows = torch.from_numpy(again.batches.first_windows(10_000))
    again.model.fit(rows)
    assert trainer.state.tokens == int((rows[:, 1:] != IGNORE_INDEX).sum())
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], tensor)


def test_train_measures_activations_at_each_evaluation(make_trainer: MakeTrainer) -> None:
    """Gradient norms by role are those of the step: together they have the norm of all, before clipping."""
    events = list(make_trainer(grad_clip=1e-3).train())
    norms = {event.step: event.grad_norm for event in events if isinstance(event, StepEvent)}
    found = {event.step: event.activations for event in events if isinstance(event, EvalEvent)}
    assert [*found] == [3, 6]
    for step, activations in found.items():
        by_role = activations["grad_norms"]
        assert by_role.keys() == {"embedding", "matrix", "vector"}
        assert sum(norm**2 for norm in by_role.values()) ** 0.5 == pytest.approx(norms[step], rel=1e-4)
        assert len(activations["residual_rms"]) == 3
    fitted = [event for event in make_trainer(family="ngram").train() if isinstance(event, EvalEvent)]
    assert fitted[0].activations.keys() == {"largest_logit"}
