"""Trains a run from its specification into a run directory, and resumes it; `saved` loads and evaluates runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lmzoo import bounds
from lmzoo.data.streaming import StreamedCorpus
from lmzoo.data.tokenizers import Tokenizer, load_tokenizer
from lmzoo.distributed.parallel import parallelize
from lmzoo.distributed.ranks import Ranks, process_group
from lmzoo.errors import ConfigError
from lmzoo.runs.directory import (
    create,
    find_run,
    keeps_near_duplicates,
    make_tables,
    read_tables,
    train_config,
    write_tables,
)
from lmzoo.runs.inputs import PreparedData, batches_and_validation, load_data, new_tokenizer
from lmzoo.runs.lock import locked
from lmzoo.runs.out_of_memory import explain_out_of_memory
from lmzoo.runs.result import RunResult, result_of
from lmzoo.runs.resuming import machine_note, prolonged, require_resumable, require_same, require_world_size
from lmzoo.runs.saved import Run, evaluate_run, evaluate_run_positions, load_run
from lmzoo.runs.spec import ANY_VOCAB_SIZE, RunSpec, make_spec
from lmzoo.runs.start import freeze, make_objective
from lmzoo.runs.training import train
from lmzoo.storage import atomic, models
from lmzoo.train.checkpoint import TrainingState
from lmzoo.train.events import EndEvent, Listener, NoteEvent, fan_out
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.trainer import LastEvaluation, Trainer

__all__ = [
    "Run",
    "RunResult",
    "RunSpec",
    "evaluate_run",
    "evaluate_run_positions",
    "load_run",
    "make_spec",
    "train_part",
    "train_run",
]

SAMPLE_FILE = "sample.txt"
_BYTES_PER_TOKEN = 64  # that a batch needs at the very least: its tokens, targets and a few features
SAMPLE_TOKENS: int = 500


@dataclass(frozen=True)
class _Call:
    """The arguments of `train_run` or `train_part`; with `until`, training ends after this step."""

    spec: RunSpec
    run: Path
    resume: bool = False
    prolong: bool = False
    reshard: bool = False
    listeners: Sequence[Listener] = ()
    prepared: PreparedData | None = None
    keep_freed_memory: bool = False
    sample: bool = False
    last_evaluation: LastEvaluation | None = None
    until: int | None = None


def train_run(
    spec: RunSpec,
    out: str | Path,
    *,
    resume: bool = False,
    prolong: bool = False,
    reshard: bool = False,
    listeners: Sequence[Listener] = (),
    prepared: PreparedData | None = None,
    keep_freed_memory: bool = False,
    sample: bool = True,
    last_evaluation: LastEvaluation | None = None,
) -> RunResult:
    """Train the run `spec` in the directory `out`.

    With `resume`, an existing run continues from its newest valid checkpoint, bitwise as if it had never stopped; the
    result of a finished run is returned at once; if there is no run, a new one begins. Without `resume`, `out` must be
    missing or empty. A resumed run follows its config.toml, with which `spec` must agree, except for training settings
    that are None. With `prolong`, `spec` may have more steps, if the schedule allows it (see `resuming.prolonged`).

    `prepared` holds the text and the tokenizer of `spec`, for callers that train several runs on them; by default, both
    are made here. `keep_freed_memory` changes the memory allocator of the whole process during training, which is then
    faster (train/malloc.py); the command line turns it on. With `sample`, a text is generated at the end.
    `last_evaluation` replaces the evaluation after the last step, for callers that need more than its loss.

    Under torchrun all ranks must call it with the same arguments, and `out` must be a directory that all of them can
    access. Only rank 0 writes files and calls its listeners. With `reshard`, a run may continue with another number of
    processes.

    Raises an `LmzooError` of one line, with nothing written, for a spec, a text or a directory that cannot be used, and
    for a run made from another spec; `DivergedError` if training diverges; `Interrupted` after Ctrl-C or SIGTERM, when
    everything is saved; `LostProcessError` if another process of the run has died.
    """
    call = _Call(
        spec,
        Path(out),
        resume=resume,
        prolong=prolong,
        reshard=reshard,
        listeners=listeners,
        prepared=prepared,
        keep_freed_memory=keep_freed_memory,
        sample=sample,
        last_evaluation=last_evaluation,
    )
    return result_of(call.run, _on_ranks(call))


def train_part(
    spec: RunSpec,
    out: str | Path,
    until: int,
    *,
    listeners: Sequence[Listener] = (),
    prepared: PreparedData | None = None,
    keep_freed_memory: bool = False,
) -> TrainingState:
    """Begin or resume the run `spec`, and stop and save it after the step `until`; returns its state.

    The learning rate follows the schedule of all steps, and nothing is evaluated that would not be evaluated anyway, so
    `train_run` with `resume` later completes the run bitwise as if it had never stopped: it also makes the evaluation
    after the last step, which is left out here. A run that is past `until` stays as it is. Other arguments and errors
    as `train_run`.
    """
    call = _Call(
        spec,
        Path(out),
        resume=True,
        listeners=listeners,
        prepared=prepared,
        keep_freed_memory=keep_freed_memory,
        until=until,
    )
    return _on_ranks(call)


def _on_ranks(call: _Call) -> TrainingState:
    """Answer `call` on every rank; the others begin when rank 0 has made or found the run directory."""
    with process_group() as ranks:
        if not ranks.is_main:
            ranks.barrier()
            call = replace(call, listeners=(), resume=True, prolong=False, reshard=False)
        return _run(call, ranks)


def _run(call: _Call, ranks: Ranks) -> TrainingState:
    """Answer `call` on one rank; returns the state of the run."""
    spec, run, emit = call.spec, call.run, fan_out(call.listeners)
    ranks.require_rows(spec.train.batch_size)
    tokens = spec.train.batch_size * spec.model_config(ANY_VOCAB_SIZE).context_length
    bounds.require_memory(f"a batch of {tokens} tokens", tokens * _BYTES_PER_TOKEN)
    before = read_tables(run) if find_run(run, resume=call.resume) else None
    if before is None:
        spec = replace(spec, train=spec.train.resolved())
    else:
        require_resumable(run, before)
    data = call.prepared or _read_data(spec, None if before is None else run, emit)
    devices = [ranks.device] if ranks.device.type == "cuda" else []
    try:
        # fork_rng restores the random state of the caller afterwards.
        with torch.random.fork_rng(devices=devices), explain_out_of_memory(spec, run):
            generator = torch.Generator().manual_seed(spec.train.seed)
            model = spec.make_model(data.tokenizer.vocab_size, generator=generator, device=ranks.device)
            if spec.start is not None:
                freeze(model, spec.start.trained)
            objective = make_objective(spec, model, data.tokenizer, ranks.world_size)
            torch.manual_seed(spec.train.seed + ranks.rank)  # each rank draws its own dropout
            if model.traits.trainable and not model.num_params():
                raise ConfigError(f"{spec.model} has no parameters: there is nothing to train")
            tables = make_tables(spec, data.corpus, data.tokenizer, model, ranks.world_size)
            if before is not None:
                tables = _resumed_tables(call, before, tables, emit)
            config, context_length = train_config(run, tables), model.config.context_length
            batches, val = batches_and_validation(data, config, context_length, emit)
            with locked(run) if ranks.is_main else nullcontext(), closing(batches):
                if before is None:
                    create(run, tables, data.tokenizer, val)
                elif ranks.is_main and tables != before:
                    if tables["train"] != before["train"]:
                        atomic.discard(run / SAMPLE_FILE)  # was generated after fewer steps
                    write_tables(run, tables)
                if ranks.is_main:
                    ranks.barrier()
                with torch.random.fork_rng(devices=devices):  # counting FLOPs may run the model, with dropout
                    flops = model.flops_per_token(context_length)  # before sharding: one rank alone cannot run a shard
                trainer = Trainer(
                    model=model,
                    parallel_model=parallelize(model, config.parallel, ranks),
                    optimizer=make_optimizer(model, config),
                    batches=batches,
                    val=val,
                    config=config,
                    precision=tables["machine"]["precision"],
                    run=run,
                    state=TrainingState(),
                    ranks=ranks,
                    keep_freed_memory=call.keep_freed_memory,
                    objective=objective,
                    until=call.until,
                    last_evaluation=call.last_evaluation,
                )
                state = train(trainer, spec, call.listeners, flops)
                if call.sample and ranks.is_main and state.step == config.steps and not (run / SAMPLE_FILE).exists():
                    atomic.write_file(run / SAMPLE_FILE, _sample(trainer, data.tokenizer))
                return state
    finally:
        emit(EndEvent())


def _resumed_tables(call: _Call, before: Mapping[str, Any], now: Mapping[str, Any], emit: Listener) -> dict[str, Any]:
    """Return the tables of a run that is resumed: those of its config.toml, with what `call` may change.

    `now` are the tables of the spec on this machine. Raises an `LmzooError` if they are not of the same run.
    """
    then = prolonged(call.run, before, call.spec.train.steps) if call.prolong else before
    require_same(call.run, then, now)
    if not call.reshard:
        require_world_size(before, now)
    if note := machine_note(before, now):
        emit(NoteEvent(note))
    return {**then, "machine": {**before["machine"], "world_size": now["machine"]["world_size"]}}


def _read_data(spec: RunSpec, run: Path | None, emit: Listener) -> PreparedData:
    """Read the text of `spec`; load the tokenizer of the resumed run or of the start, or train a new one."""
    keep = run is not None and keeps_near_duplicates(read_tables(run))
    corpus = load_data(spec.data, keep_near_duplicates=keep)
    if isinstance(corpus, StreamedCorpus):
        emit(NoteEvent(f"{corpus.name}: {corpus.copies_note}"))
    own = None if spec.start is None else spec.start.tokenizer or spec.start.path
    place = run or own
    if place is None:
        return PreparedData(corpus, new_tokenizer(spec.tokenizer, corpus, emit))
    kind, _, size = spec.tokenizer.partition(":")
    tokenizer = load_tokenizer(place)
    return PreparedData(corpus, tokenizer.for_model(int(size)) if kind == "pretrained" else tokenizer)


def _sample(trainer: Trainer, tokenizer: Tokenizer) -> str:
    """Generate a text with the trained model, from the first token of the validation split."""
    alone = trainer.ranks.world_size == 1  # one rank alone cannot run a sharded model: it is loaded from the disk
    model = trainer.model.eval() if alone else models.load_model(trainer.run).to(trainer.ranks.device)
    assert trainer.val is not None
    idx_BT = torch.tensor([[int(trainer.val.tokens[0])]], device=model.device)
    generator = torch.Generator(model.device).manual_seed(trainer.config.seed)
    out_BT = model.generate(idx_BT, SAMPLE_TOKENS, temperature=0.8, generator=generator)
    return tokenizer.decode(out_BT[0].tolist())
