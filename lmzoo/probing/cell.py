"""Trains and tests one cell, with the trainer of all runs. Legend: B batch, T time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from lmzoo import files
from lmzoo.data.probes import Task
from lmzoo.data.probes.batches import TaskBatches
from lmzoo.distributed.ranks import Ranks
from lmzoo.errors import DivergedError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.probing.accuracy import accuracy
from lmzoo.probing.plan import Cell
from lmzoo.probing.results import CellResult
from lmzoo.runs.out_of_memory import explain_out_of_memory
from lmzoo.storage import atomic
from lmzoo.train.checkpoint import TrainingState, newest_valid, restore_checkpoint
from lmzoo.train.events import EvaluatingEvent, Listener, StartEvent, StepEvent
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.precision import resolve_precision
from lmzoo.train.signals import Interrupted
from lmzoo.train.trainer import Trainer

POINTS = 10  # of the curve
CURVE_FILE = "curve.json"  # beside the checkpoint of a cell that is not finished
_MAX_BYTES = 1 << 16


def train_cell(
    cell: Cell, run: Path, emit: Listener, device: torch.device, *, keep_freed_memory: bool = False
) -> CellResult:
    """Train a model on a level from new weights, or from the checkpoint in `run`, and test it at both lengths.

    After the last step, and after a signal, `run` holds a checkpoint; the caller removes it when the result is kept.
    Raises `Interrupted` after a signal. A model that diverges is a result too.
    """
    spec, level = cell.spec, cell.level
    ranks = Ranks(device=device)
    with torch.random.fork_rng(devices=[0] if device.type == "cuda" else []), explain_out_of_memory(spec, run):
        generator = torch.Generator().manual_seed(cell.seed)
        model = spec.make_model(level.task.vocab_size, generator=generator, device=device)
        torch.manual_seed(cell.seed)  # of dropout
        trainer = Trainer(
            model=model,
            parallel_model=model,
            optimizer=make_optimizer(model, spec.train),
            batches=TaskBatches(level.task, spec.train.batch_size, level.trained, cell.seed),
            val=None,
            config=dataclasses.replace(spec.train.resolved(), checkpoint_every=spec.train.steps),
            precision=resolve_precision(spec.train.precision, model, spec.train.batch_size),
            run=run,
            state=TrainingState(),
            ranks=ranks,
            keep_freed_memory=keep_freed_memory,
        )
        folder, _ = newest_valid(run)
        if folder is not None:
            trainer.state = restore_checkpoint(folder, model, trainer.optimizer, ranks, cell.seed)
        result = CellResult(
            model=cell.model,
            probe=cell.probe.name,
            difficulty=cell.difficulty,
            seed=cell.seed,
            params=model.num_params(),
            settings=cell.settings,
        )
        try:
            curve = _train(cell, trainer, emit)
        except DivergedError as error:
            return dataclasses.replace(result, status="diverged", problem=str(error), seconds=trainer.state.seconds)
        except Interrupted as stop:
            stop.args = (f"stopped {cell.title} after step {stop.step}; the same command continues",)
            raise
        return dataclasses.replace(
            _test(result, cell, model, trainer.precision, _evaluating(emit, spec.train.steps)),
            curve=curve,
            seconds=trainer.state.seconds,
        )


def _train(cell: Cell, trainer: Trainer, emit: Listener) -> list[list[float]]:
    """Train to the last step; returns the curve."""
    model, config, state, level = trainer.model, trainer.config, trainer.state, cell.level
    idx_BT, targets_BT = level.task.test_rows(level.trained)
    rows = config.batch_size * config.grad_accumulation
    questions = round(rows * int((targets_BT != IGNORE_INDEX).sum()) / len(idx_BT))
    emit(
        StartEvent(
            model=cell.title,
            params=model.num_params(),
            step=state.step,
            steps=config.steps,
            tokens_per_step=questions,  # the trainer counts targets that are not ignored
            precision=trainer.precision,
            device=model.device.type,
            path=trainer.run.parent.parent,
            flops_per_step=3 * rows * level.trained * model.flops_per_token(level.trained),
        )
    )
    curve = _read_curve(trainer.run, state.step)
    try:
        with closing(trainer.train()) as events:
            for event in events:
                if isinstance(event, StepEvent):
                    emit(event)
                    if event.step % max(1, config.steps // POINTS) == 0:
                        curve.append([event.step, accuracy(model, idx_BT, targets_BT, precision=trainer.precision)])
    finally:
        if trainer.run.is_dir():  # it may hold a checkpoint
            atomic.write_file(trainer.run / CURVE_FILE, json.dumps(curve))
    return curve


def _read_curve(run: Path, step: int) -> list[list[float]]:
    """Read the curve that was left with the checkpoint of `step`."""
    try:
        points = files.parse_json(files.read_bytes(run / CURVE_FILE, _MAX_BYTES))
        return [[int(at), float(value)] for at, value in points if at <= step]
    except (OSError, ValueError, TypeError):
        return []


def _test(
    result: CellResult, cell: Cell, model: LanguageModel, precision: str, progress: Callable[[int, int], None]
) -> CellResult:
    """Measure the accuracies of a trained model."""
    level = cell.level

    def measured(task: Task, length: int) -> float:
        return accuracy(model, *task.test_rows(length), precision=precision, progress=progress)

    return dataclasses.replace(
        result,
        accuracy_trained=measured(level.task, level.trained),
        accuracy_tested=measured(level.task, level.tested),
        parts={name: measured(task, level.tested) for name, task in level.task.parts().items()},
    )


def _evaluating(emit: Listener, step: int) -> Callable[[int, int], None]:
    return lambda done, total: emit(EvaluatingEvent(step, done, total))
