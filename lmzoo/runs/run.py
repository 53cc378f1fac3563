"""A run: from a spec to a directory with everything that came of it, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lmzoo import registry
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import TOKENIZER_FILE, Tokenizer, load_tokenizer
from lmzoo.distributed.parallel import parallelise
from lmzoo.distributed.ranks import Ranks, process_group
from lmzoo.errors import CheckpointError, DataError
from lmzoo.model import LanguageModel
from lmzoo.runs.directory import (
    CONFIG_FILE,
    check_directory,
    create,
    machine_note,
    make_tables,
    read_tables,
    require_same,
    require_world_size,
    write_tables,
)
from lmzoo.runs.inputs import batches_and_validation, load_data, new_tokenizer, validation_split
from lmzoo.runs.lock import locked
from lmzoo.runs.metrics import METRICS_FILE, MetricsWriter
from lmzoo.runs.out_of_memory import memory_told
from lmzoo.runs.spec import RunSpec, make_spec
from lmzoo.storage import atomic, checkpoints, models
from lmzoo.train.checkpoint import TrainingState, newest_valid, read_state, remember_best, restore_checkpoint
from lmzoo.train.evaluate import EvalResult, PositionLoss, evaluate, evaluate_positions
from lmzoo.train.events import EndEvent, Event, Listener, NoteEvent, StartEvent
from lmzoo.train.optimizer import make_optimizer
from lmzoo.train.trainer import Trainer

__all__ = ["Run", "RunResult", "RunSpec", "evaluate_run", "load_run", "make_spec", "train_run"]

SAMPLE_FILE = "sample.txt"
SAMPLE_TOKENS = 500


@dataclass(frozen=True)
class RunResult:
    """How a run ended: validation loss in nats per token; `seconds` and the median `tokens_per_s` of training alone."""

    path: Path
    loss: float
    bits_per_byte: float
    tokens: int
    seconds: float
    tokens_per_s: float


class Run(NamedTuple):
    """A finished or interrupted run, to be used: the model is in eval mode; `tables` are those of config.toml."""

    model: LanguageModel
    tokenizer: Tokenizer
    tables: dict[str, Any]


def train_run(
    spec: RunSpec,
    out: str | Path,
    *,
    resume: bool = False,
    reshard: bool = False,
    listeners: Sequence[Listener] = (),
) -> RunResult:
    """Train what `spec` says, in the directory `out`.

    With `resume`, a run that is there goes on from its newest valid checkpoint, to the bit as if it had never stopped;
    a finished one is only reported; where there is none, one begins. Without, `out` must be missing or empty.

    Under torchrun every process calls it alike, with an `out` that all of them see; the first writes and tells, and the
    listeners of the others hear nothing. With `reshard`, a run goes on with another number of processes.

    Raises an `LmzooError` of one line, with nothing written, for a spec, a text or a directory that cannot be used, and
    for a run made from another spec; `DivergedError` when training does; `Interrupted` after Ctrl-C or SIGTERM, with
    all saved; `LostProcessError` when another process of the run is gone.
    """
    with process_group() as ranks:
        if ranks.leads:
            return _run(spec, Path(out), ranks, listeners, resume=resume, reshard=reshard)
        ranks.wait()  # until the first has made the run, or has found it
        return _run(spec, Path(out), ranks, (), resume=True, reshard=False)


def _run(
    spec: RunSpec, run: Path, ranks: Ranks, listeners: Sequence[Listener], *, resume: bool, reshard: bool
) -> RunResult:
    """`train_run` on one of the ranks."""
    ranks.require_rows(spec.train.batch_size)
    exists = check_directory(run, resume=resume)
    emit = _sender(listeners)
    before = read_tables(run) if exists else None
    corpus = load_data(spec.data)
    tokenizer = load_tokenizer(run) if exists else new_tokenizer(spec.tokenizer, corpus, emit)
    config = spec.model_config(tokenizer.vocab_size)
    devices = [ranks.device] if ranks.device.type == "cuda" else []
    try:
        # The caller's random numbers go on as if nothing had happened.
        with torch.random.fork_rng(devices=devices), memory_told(spec, config.context_length, run):
            torch.manual_seed(spec.train.seed)
            model = registry.model_class(spec.model.partition(".")[0])(config)
            model.init_weights(torch.Generator().manual_seed(spec.train.seed))
            model.to(ranks.device)
            if ranks.rank:  # the same weights everywhere, but dropout of one's own
                torch.manual_seed(spec.train.seed + ranks.rank)
            tables = make_tables(spec, config, corpus, tokenizer, model, ranks.world_size)
            if before is not None:
                require_same(run, before, tables)
                if not reshard:
                    require_world_size(before, tables)
                if note := machine_note(before, tables):
                    emit(NoteEvent(note))
                machine: dict[str, Any] = {**before["machine"], "world_size": ranks.world_size}
                tables = {**before, "machine": machine}
            batches, val = batches_and_validation(corpus, tokenizer, spec.train, config.context_length, emit)
            with locked(run) if ranks.leads else nullcontext(), closing(batches):
                if before is None:
                    create(run, tables, tokenizer)
                elif ranks.leads and tables != before:
                    write_tables(run, tables)
                if ranks.leads:
                    ranks.wait()
                with torch.random.fork_rng(devices=devices):  # some models have to run to be counted, dropout and all
                    flops = model.flops_per_token(config.context_length)  # now: shards could not be run by one rank
                trainer = Trainer(
                    model=model,
                    forward=parallelise(model, spec.train.parallel, ranks),
                    optimizer=make_optimizer(model, spec.train),
                    batches=batches,
                    val=val,
                    config=spec.train,
                    precision=tables["machine"]["precision"],
                    run=run,
                    state=TrainingState(),
                    emit=emit,
                    ranks=ranks,
                )
                return _train(trainer, spec, tokenizer, listeners, flops)
    finally:
        emit(EndEvent())


def _train(
    trainer: Trainer, spec: RunSpec, tokenizer: Tokenizer, listeners: Sequence[Listener], flops_per_token: float
) -> RunResult:
    """Go on from the newest checkpoint, if there is one, to the end."""
    run, model, config, ranks = trainer.run, trainer.model, trainer.config, trainer.ranks
    folder, notes = _newest(run, ranks)
    if folder is not None:
        trainer.state = restore_checkpoint(folder, model, trainer.optimizer, ranks, config.seed)
        remember_best(run, trainer.state)
    state = trainer.state
    for note in notes:
        trainer.emit(NoteEvent(f"{note}; training goes on from step {state.step}"))
    if state.step > config.steps:
        raise CheckpointError(f"{run}: its checkpoint is of step {state.step}, past train.steps={config.steps}")
    if state.step < config.steps or state.val_step != state.step:
        metrics = None
        if ranks.leads:
            evaluated = state.val_step == state.step
            metrics = MetricsWriter(run, config.log_every, after_step=state.step, evaluated=evaluated)
        if metrics is not None and metrics.unreadable:
            trainer.emit(NoteEvent(f"{run / METRICS_FILE}: {metrics.unreadable} lines cannot be read and are dropped"))
        trainer.emit = _sender([*([metrics] if metrics is not None else ()), *listeners])
        tokens = config.batch_size * config.grad_accumulation * model.config.context_length
        trainer.emit(
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
            trainer.train()
        finally:
            if metrics is not None:
                metrics(EndEvent())
    if ranks.leads and not (run / SAMPLE_FILE).exists():
        atomic.write_file(run / SAMPLE_FILE, _sample(trainer, tokenizer))
    if state.val_loss is None or state.val_bits_per_byte is None:
        raise CheckpointError(f"{run}: its last checkpoint holds no validation loss")
    return RunResult(run, state.val_loss, state.val_bits_per_byte, state.tokens, state.seconds, state.tokens_per_s)


def _newest(run: Path, ranks: Ranks) -> tuple[atomic.Folder | None, list[str]]:
    """What `newest_valid` says, on all ranks: the first looks, for it renames what is damaged."""
    if not ranks.leads:
        step = ranks.most(0) - 1
        return (None if step < 0 else atomic.open_folder(checkpoints.path_of(run, step))), []
    atomic.clean(run)
    atomic.clean(run / checkpoints.FOLDER)
    folder, notes = newest_valid(run)
    ranks.most(0 if folder is None else 1 + read_state(folder).step)
    return folder, notes


def load_run(path: str | Path) -> Run:
    """The model (newest valid checkpoint), tokenizer and settings of a run, or of one checkpoint in it.

    Raises `CheckpointError` or `DataError`. Warns when a damaged newest checkpoint had to be passed over.
    """
    place = Path(path).resolve()
    run = place.parent.parent if place.parent.name == "checkpoints" else place
    tables = read_tables(run)
    model, tokenizer = models.load_model(path), load_tokenizer(run)
    if model.config.vocab_size != tokenizer.vocab_size:
        raise CheckpointError(
            f"{run}: the model has vocab_size={model.config.vocab_size}, its tokenizer {tokenizer.vocab_size}"
        )
    if tokenizer.sha256 != tables["data"].get("tokenizer_sha256"):
        raise CheckpointError(f"{run / TOKENIZER_FILE}: its SHA-256 is not that of {CONFIG_FILE} (damaged or changed)")
    return Run(model, tokenizer, tables)


def evaluate_run(path: str | Path, data: str | None = None) -> EvalResult:
    """The loss of a run over the whole validation split of its own text, or of another.

    Raises `DataError` when its own text has changed since.
    """
    model, split, precision = _model_and_split(path, data)
    return evaluate(model, split, precision=precision)


def evaluate_run_positions(path: str | Path, data: str | None = None, length: int | None = None) -> list[PositionLoss]:
    """The same by the number of tokens read before, up to `length`, which may be beyond the training's."""
    model, split, _ = _model_and_split(path, data)
    return evaluate_positions(model, split, length=length)


def _model_and_split(path: str | Path, data: str | None) -> tuple[LanguageModel, TokenSplit, str]:
    """The model of a run, the validation split, and the precision it was trained in."""
    model, tokenizer, tables = load_run(path)
    corpus = load_data(data or str(tables["data"].get("data")))
    trained_on = tables["data"].get("corpus_sha256")
    if data is None and corpus.sha256 != trained_on:
        raise DataError(f"{corpus.name}: its SHA-256 is {corpus.sha256}, that of the run's text was {trained_on}")
    return model, validation_split(corpus, tokenizer), tables["machine"]["precision"]


def _sample(trainer: Trainer, tokenizer: Tokenizer) -> str:
    """A text by the trained model, from the first token of the validation split on."""
    alone = trainer.ranks.world_size == 1  # a model in shards cannot be asked by one of its ranks
    model = trainer.model.eval() if alone else models.load_model(trainer.run).to(trainer.ranks.device)
    idx_BT = torch.tensor([[int(trainer.val.tokens[0])]], device=model.device)
    generator = torch.Generator(model.device).manual_seed(trainer.config.seed)
    out_BT = model.generate(idx_BT, SAMPLE_TOKENS, temperature=0.8, generator=generator)
    return tokenizer.decode(out_BT[0].tolist())


def _sender(listeners: Sequence[Listener]) -> Callable[[Event], None]:
    def send(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return send
