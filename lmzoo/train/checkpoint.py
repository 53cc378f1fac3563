"""Checkpoints of a run: model, optimizer state, random states and counters, committed together or not at all."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from lmzoo import configs
from lmzoo.distributed import Parallel, sharded
from lmzoo.distributed.parallel import like, like_shaped, local_tensor
from lmzoo.distributed.ranks import Ranks
from lmzoo.errors import CheckpointError, ConfigError, DivergedError
from lmzoo.model import LanguageModel
from lmzoo.storage import atomic, checkpoints, models, reading, safetensors
from lmzoo.storage.names import unfinished
from lmzoo.train import retention
from lmzoo.train.optimizer import optimizer_tensors, restore_optimizer

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINING_FILE = "training.json"
_RANDOM = "random/"  # prefix of the names of random states; parameter names contain no such prefix


@dataclass
class TrainingState:
    """Progress of a run; all other state follows from its config and its tensors."""

    step: int = 0  # steps done
    tokens: int = 0  # targets trained on
    seconds: float = 0.0  # time of training steps, without evaluations and checkpoints
    eval_seconds: float = 0.0  # time of the evaluations
    tokens_per_s: float = 0.0  # median over the steps of the last process, without its warm-up steps
    val_loss: float | None = None  # the last evaluation, in nats per token
    val_bits_per_byte: float | None = None
    val_step: int | None = None  # the step of that evaluation
    best_loss: float | None = None  # the best evaluation that has a checkpoint
    best_step: int | None = None
    grad_norms: dict[str, float] | None = None  # by role, of the last step before an evaluation, before clipping
    position: dict[str, Any] | None = None  # position in the data, written and checked by `Batches`


def save_checkpoint(
    run: Path,
    state: TrainingState,
    model: LanguageModel,
    optimizer: Optimizer,
    keep: int,
    ranks: Ranks,
    parallel: Parallel = "ddp",
) -> Path:
    """Save the state after `state.step`, then remove all but the newest `keep` valid checkpoints and the best one.

    All ranks must call it; rank 0 commits. The model is always one portable file, and so is the optimizer state, except
    with FSDP, where each rank writes its own shards of it. Raises `DivergedError`, with nothing written, for a value
    that is not finite, and `CheckpointError` for an error of the disk; older checkpoints then stay.
    """
    path = checkpoints.path_of(run, state.step)
    weights, moments = models.tensors_of(model), optimizer_tensors(model, optimizer)
    _require_finite({**weights, **moments}, ranks)
    random, in_shards = _random_states(ranks), ranks.world_size > 1 and parallel == "fsdp"
    if ranks.is_main:
        with atomic.new_folder(path) as new:
            models.write_model(model, new)
            if in_shards:
                ranks.barrier()  # the other ranks may write to the folder now
                sharded.write_shards(moments, new)
            safetensors.write_tensors({**({} if in_shards else moments), **random}, new / OPTIMIZER_FILE)
            text = json.dumps({"lmzoo": 1, **dataclasses.asdict(state)}, indent=1)
            atomic.write_new(new / TRAINING_FILE, [text.encode()])
        retention.prune(run, keep, newest=state.step, best=state.best_step)
    elif in_shards:
        for _ in safetensors.chunks(weights):  # takes part in gathering each weight that rank 0 writes
            pass
        ranks.barrier()
        try:
            sharded.write_shards(moments, unfinished(path))
        except OSError as error:
            raise atomic.cannot_write(path, error) from error
    return path


def _require_finite(tensors: dict[str, torch.Tensor], ranks: Ranks) -> None:
    """Raise `DivergedError` on all ranks if a tensor of any rank contains a value that is not finite."""
    names = sorted(tensors)
    first = next(
        (
            number
            for number, name in enumerate(names)
            if tensors[name].is_floating_point() and not bool(torch.isfinite(local_tensor(tensors[name])).all())
        ),
        None,
    )
    found = ranks.all_reduce_max(0 if first is None else len(names) - first)
    if found:
        raise DivergedError(f"{names[len(names) - found]} is no longer finite")


def read_state(folder: reading.Folder) -> TrainingState:
    """Read the counters of a checkpoint. Raises `CheckpointError`, also if the folder is named after another step."""
    content = folder.json(TRAINING_FILE)
    where = folder.path / TRAINING_FILE
    if content.pop("lmzoo", None) != 1:
        raise CheckpointError(f"{where}: lmzoo must be 1")
    try:
        state = configs.build(TrainingState, content, where=str(where))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if checkpoints.path_of(Path(), state.step).name != folder.path.name:
        raise CheckpointError(f"{where}: step={state.step} must be the step in the folder's name")
    return state


def restore_checkpoint(
    folder: reading.Folder, model: LanguageModel, optimizer: Optimizer, ranks: Ranks, seed: int
) -> TrainingState:
    """Restore model, optimizer and torch's random states from a checkpoint. Raises `CheckpointError`.

    A rank without a saved random state (more ranks than when it was saved) seeds its own from `seed`.
    """
    state = read_state(folder)
    saved = models.read_model(folder)
    if saved.config != model.config or saved.family != model.family:
        file = folder.path / models.MODEL_CONFIG_FILE
        raise CheckpointError(f"{file}: is of another model than the run's config.toml")
    copy_weights(saved, model)
    parameters = dict(model.named_parameters())

    def check(key: str, shape: tuple[int, ...], is_float: bool) -> None:
        name, slash, _ = key.rpartition("/")
        if not slash or name not in parameters or shape not in ((), parameters[name].shape) or not is_float:
            raise CheckpointError(f"{folder.path}: {key} of shape {shape} is not the state of a parameter")

    in_shards = sharded.shard_shapes(folder)
    for key, (shape, _) in in_shards.items():
        check(key, shape, True)
    with safetensors.open_tensors(folder.file(OPTIMIZER_FILE)) as file:
        for key, shape in file.shapes.items():
            if not key.startswith(_RANDOM):
                check(key, shape, file.dtypes[key] in safetensors.FLOATS)
        tensors = {key: file.tensor(key) for key in file.shapes}
    random = {key: tensors.pop(key) for key in list(tensors) if key.startswith(_RANDOM)}
    if in_shards:
        found = {
            key: like_shaped(parameters[key.rpartition("/")[0]], shape, dtype)
            for key, (shape, dtype) in in_shards.items()
        }
        sharded.read_shards(folder, found)
        tensors |= found
    restore_optimizer(model, optimizer, tensors)
    _restore_random_states(random, ranks, seed + state.step)
    return state


@torch.no_grad()
def copy_weights(saved: LanguageModel, model: LanguageModel) -> None:
    """Copy all tensors of `saved` into `model`, which has the same ones; each rank copies its own shards."""
    now = models.tensors_of(model)
    for name, tensor in models.tensors_of(saved).items():
        local_tensor(now[name]).copy_(local_tensor(like(now[name], tensor)))


def newest_valid(run: Path) -> tuple[reading.Folder | None, list[str]]:
    """Find the newest valid checkpoint, to resume from, and return it with one message for each damaged checkpoint.

    Damaged checkpoints are renamed, so that they neither block nor outrank later checkpoints and do not count as kept
    ones. Raises `CheckpointError` for an error of the disk.
    """
    found: reading.Folder | None = None
    notes: list[str] = []
    for _, path in checkpoints.saved(run):
        try:
            folder = reading.open_folder(path)
            read_state(folder)
            found = found or folder
        except CheckpointError as error:
            notes.append(f"{error}; set aside as {atomic.set_aside(path, 'damaged').name}")
    return found, notes


def remember_best(run: Path, state: TrainingState) -> None:
    """After a rollback, recompute the best step from the checkpoints that still exist.

    Must be called after `newest_valid`, which renames damaged checkpoints.
    """
    steps = checkpoints.saved(run)
    if state.best_step is None or state.best_step in [step for step, _ in steps]:
        return
    state.best_loss = state.best_step = None
    for step, path in reversed(steps):
        then = read_state(reading.open_folder(path))
        loss = then.val_loss if then.val_step == step else None
        if loss is not None and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.best_step = loss, step


def _random_states(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Random states of all ranks; rank 0's keys have no suffix, as in a checkpoint of a single process."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {
        _random_name(kind, rank): of_rank
        for kind, state in states.items()
        for rank, of_rank in enumerate(ranks.gather(state))
    }


def _random_name(kind: str, rank: int) -> str:
    return f"{_RANDOM}{kind}.{rank}" if rank else f"{_RANDOM}{kind}"


def _restore_random_states(states: dict[str, torch.Tensor], ranks: Ranks, seed: int) -> None:
    cpu, cuda = (_random_name(kind, ranks.rank) for kind in ("cpu", "cuda"))
    if ranks.rank and cpu not in states:
        torch.manual_seed(seed + ranks.rank)
        return
    try:
        torch.set_rng_state(states[cpu].clone())
        if torch.cuda.is_available() and cuda in states:
            torch.cuda.set_rng_state(states[cuda].clone())
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{OPTIMIZER_FILE}: holds no usable random state: {error}") from error
