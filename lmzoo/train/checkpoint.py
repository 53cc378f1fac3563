"""Checkpoints of a run: the model, the optimizer, the random state and the counters, all of one moment or none."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from lmzoo import commit, saving
from lmzoo import config as configs
from lmzoo.errors import CheckpointError, ConfigError, DivergedError
from lmzoo.model import LanguageModel
from lmzoo.train import retention
from lmzoo.train.optimizer import optimizer_tensors, restore_optimizer

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINING_FILE = "training.json"
_RANDOM = "random/"  # what the names of random states begin with; no parameter's does, for its names have dots


@dataclass
class TrainingState:
    """Where a run is. Everything else about it follows from its config and its tensors."""

    step: int = 0  # steps done
    tokens: int = 0  # targets trained on
    seconds: float = 0.0  # spent in training steps alone
    tokens_per_s: float = 0.0  # median over the steps of the last process, warm-up left out
    val_loss: float | None = None  # the last evaluation, in nats per token
    val_bits_per_byte: float | None = None
    val_step: int | None = None  # when that was
    best_loss: float | None = None  # the best evaluation that has a checkpoint
    best_step: int | None = None
    position: dict[str, Any] | None = None  # in the data, as `Batches.position` tells and checks it


def save_checkpoint(run: Path, state: TrainingState, model: LanguageModel, optimizer: Optimizer, keep: int) -> Path:
    """Commit the state after `state.step`, then remove all but the newest `keep` whole checkpoints and the best.

    Raises `DivergedError` for a number that is not finite, with nothing written; `CheckpointError` when the disk
    refuses. The checkpoints before then stay.
    """
    path = saving.checkpoint_path(run, state.step)
    weights, moments = saving.tensors_of(model), optimizer_tensors(model, optimizer)
    for name, tensor in {**weights, **moments}.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DivergedError(f"{name} is no longer finite")
    with commit.new_folder(path) as new:
        saving.write_model(model, new)
        saving.write_tensors({**moments, **_random_states()}, new / OPTIMIZER_FILE)
        text = json.dumps({"lmzoo": 1, **dataclasses.asdict(state)}, indent=1)
        commit.write_new(new / TRAINING_FILE, [text.encode()])
    retention.prune(run, keep, newest=state.step, best=state.best_step)
    return path


def read_state(folder: commit.Folder) -> TrainingState:
    """The counters of a checkpoint. Raises `CheckpointError`, also for a folder whose name says another step."""
    content = folder.json(TRAINING_FILE)
    where = folder.path / TRAINING_FILE
    if content.pop("lmzoo", None) != 1:
        raise CheckpointError(f"{where}: lmzoo must be 1")
    try:
        state = configs.build(TrainingState, content, where=str(where))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if saving.checkpoint_path(Path(), state.step).name != folder.path.name:
        raise CheckpointError(f"{where}: step={state.step} must be that of the folder's name")
    return state


def restore_checkpoint(folder: commit.Folder, model: LanguageModel, optimizer: Optimizer) -> TrainingState:
    """Bring model, optimizer and torch's random state to what they were. Raises `CheckpointError`."""
    state = read_state(folder)
    saved = saving.read_model(folder)
    if saved.config != model.config or type(saved) is not type(model):
        raise CheckpointError(f"{folder.path / saving.CONFIG_FILE}: is of another model than the run's config.toml")
    with torch.no_grad():
        now = saving.tensors_of(model)
        for name, tensor in saving.tensors_of(saved).items():
            now[name].copy_(tensor)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    with saving.open_tensors(folder.file(OPTIMIZER_FILE)) as file:
        for key, shape in file.shapes.items():
            name, slash, _ = key.rpartition("/")
            fits = bool(slash) and shape in ((), shapes.get(name)) and file.dtypes[key] in saving.FLOATS
            if not key.startswith(_RANDOM) and not (fits and name in shapes):
                raise CheckpointError(f"{file.path}: {key} of shape {shape} is not the state of a parameter")
        tensors = {key: file.tensor(key) for key in file.shapes}
        random = {key: tensors.pop(key) for key in file.shapes if key.startswith(_RANDOM)}
        restore_optimizer(model, optimizer, tensors)
    _restore_random_states(random)
    return state


def newest_valid(run: Path) -> tuple[commit.Folder | None, list[str]]:
    """The newest checkpoint that is whole, to resume from, and a line on every one that is not.

    A damaged one is renamed, so that it can neither win over what is trained next, nor stand in its way, nor count
    among those that are kept. Raises `CheckpointError` when the disk refuses.
    """
    found: commit.Folder | None = None
    notes: list[str] = []
    for _, path in saving.checkpoints(run):
        try:
            folder = commit.open_folder(path)
            read_state(folder)
            found = found or folder
        except CheckpointError as error:
            notes.append(f"{error}; set aside as {commit.set_aside(path, 'damaged').name}")
    return found, notes


def remember_best(run: Path, state: TrainingState) -> None:
    """After a rollback the best checkpoint of then may be gone: the best is the best of those that are there.

    To be called when `newest_valid` has set aside what is damaged.
    """
    steps = saving.checkpoints(run)
    if state.best_step is None or state.best_step in [step for step, _ in steps]:
        return
    state.best_loss = state.best_step = None
    for step, path in reversed(steps):
        then = read_state(commit.open_folder(path))
        loss = then.val_loss if then.val_step == step else None
        if loss is not None and (state.best_loss is None or loss < state.best_loss):
            state.best_loss, state.best_step = loss, step


def _random_states() -> dict[str, torch.Tensor]:
    states = {_RANDOM + "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[_RANDOM + "cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(states: dict[str, torch.Tensor]) -> None:
    try:
        torch.set_rng_state(states[_RANDOM + "cpu"].clone())
        if torch.cuda.is_available() and _RANDOM + "cuda" in states:
            torch.cuda.set_rng_state(states[_RANDOM + "cuda"].clone())
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{OPTIMIZER_FILE}: holds no usable random state: {error}") from error
