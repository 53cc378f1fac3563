"""Trains a run from its newest checkpoint, or from its start, and sends the events to its log and its listeners."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from lmzoo.distributed.ranks import Ranks
from lmzoo.errors import CheckpointError
from lmzoo.runs.metrics import METRICS_FILE, MetricsWriter
from lmzoo.runs.spec import RunSpec
from lmzoo.runs.start import load_start
from lmzoo.storage import atomic, checkpoints, reading
from lmzoo.train.checkpoint import (
    TrainingState,
    copy_weights,
    newest_valid,
    read_state,
    remember_best,
    restore_checkpoint,
)
from lmzoo.train.events import EndEvent, Listener, NoteEvent, StartEvent, fan_out
from lmzoo.train.trainer import Trainer


def train(trainer: Trainer, spec: RunSpec, listeners: Sequence[Listener], flops_per_token: float) -> TrainingState:
    """Train from the newest checkpoint, or from the start, to the last step or to `trainer.until`."""
    run, model, config, ranks = trainer.run, trainer.model, trainer.config, trainer.ranks
    emit = fan_out(listeners)
    folder, notes = _newest(run, ranks)
    if folder is not None:
        trainer.state = restore_checkpoint(folder, model, trainer.optimizer, ranks, config.seed)
        remember_best(run, trainer.state)
    elif spec.start is not None:
        copy_weights(load_start(spec.start), model)
    state = trainer.state
    for note in notes:
        emit(NoteEvent(f"{note}; training continues from step {state.step}"))
    if state.step > config.steps:
        raise CheckpointError(f"{run}: its checkpoint is of step {state.step}, past train.steps={config.steps}")
    if state.step < config.steps or state.val_step != state.step:
        metrics = None
        if ranks.is_main:
            evaluated = state.val_step == state.step
            metrics = MetricsWriter(run, config.log_every, after_step=state.step, evaluated=evaluated)
            if metrics.unreadable:
                emit(NoteEvent(f"{run / METRICS_FILE}: {metrics.unreadable} lines cannot be read and are dropped"))
            emit = fan_out([metrics, *listeners])
        tokens = config.batch_size * config.grad_accumulation * model.config.context_length
        emit(
            StartEvent(
                model=spec.model,
                params=model.num_params(),
                step=state.step,
                steps=config.steps,
                tokens_per_step=tokens,
                precision=trainer.precision,
                device=model.device.type,
                path=run,
                flops_per_step=3 * tokens * flops_per_token,
            )
        )
        try:
            with closing(trainer.train()) as events:
                for event in events:
                    emit(event)
        finally:
            if metrics is not None:
                metrics(EndEvent())
    return state


def _newest(run: Path, ranks: Ranks) -> tuple[reading.Folder | None, list[str]]:
    """Broadcast rank 0's `newest_valid`: only rank 0 may rename damaged checkpoints."""
    if not ranks.is_main:
        step = ranks.all_reduce_max(0) - 1
        return (None if step < 0 else reading.open_folder(checkpoints.path_of(run, step))), []
    atomic.clean(run)
    atomic.clean(run / checkpoints.FOLDER)
    folder, notes = newest_valid(run)
    ranks.all_reduce_max(0 if folder is None else 1 + read_state(folder).step)
    return folder, notes
