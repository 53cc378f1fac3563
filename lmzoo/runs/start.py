"""Loads the trained models that a run starts from and learns from, and checks that they are what its settings say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lmzoo import configs, files, registry
from lmzoo.data.tokenizers import Tokenizer
from lmzoo.errors import CheckpointError, ConfigError
from lmzoo.model import LanguageModel
from lmzoo.runs.origin import START, TEACHER, Origin, Start, Teacher, divided
from lmzoo.runs.saved import Run, load_run
from lmzoo.runs.spec import RunSpec, apply_settings
from lmzoo.storage import models, safetensors, shapes
from lmzoo.train.config import TrainConfig
from lmzoo.train.distill import Distillation, Objective, cross_entropy, features


def fingerprint(model: LanguageModel) -> str:
    """Returns the SHA-256 of a model's family, tensors, and settings that are not the defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(model.config)}
    changed = {name: value for name, value in configs.to_dict(model.config).items() if value != defaults[name]}
    digest = hashlib.sha256(json.dumps([model.family, changed], sort_keys=True).encode())
    for chunk in safetensors.chunks(models.tensors_of(model)):
        digest.update(chunk)
    return digest.hexdigest()


def start_spec(
    name: str | None,
    start: Path,
    data: str,
    settings: Mapping[str, Any],
    *,
    tokenizer: str | None = None,
    teacher: str | Path | None = None,
) -> RunSpec:
    """Make the spec of a run that starts from the trained model in `start`, with its settings and its tokenizer.

    `settings` may change those of the model where all shapes stay. `name` is None, the model's family or `start`;
    `tokenizer` is a path, for a saved model without one; `teacher` is the path of a trained model. Everything is
    checked that can be checked without the text. Raises an `LmzooError` of one line.
    """
    of_start, of_teacher, others = divided(settings)
    model, found, _ = load_run(start, tokenizer)
    if name is not None and name != model.family and files.real_path(name) != files.real_path(start):
        raise ConfigError(f"name={name!r}, but the model in {start} is {model.family}: leave the name out")
    if not model.traits.trainable:
        raise ConfigError(f"{start}: {model.family} is not trained by gradients: there is nothing to train further")
    changed, train = apply_settings(model.family, others)
    config = shapes.changed_config(model, changed)
    recipe = {key: value for key, value in registry.recipe(model.family).items() if key != "tokenizer"}
    paths = {"path": str(start), "tokenizer": tokenizer}
    spec = RunSpec(
        model=model.family,
        data=data,
        config={name: value for name, value in configs.to_dict(config).items() if name != "vocab_size"},
        tokenizer=found.spec,
        train=configs.build(TrainConfig, {**recipe, **train}),
        start=configs.build(Start, {**paths, "sha256": fingerprint(model), **of_start}, where=START),
    )
    freeze(model, of_start.get("trained", "all"))
    if teacher is not None:
        return replace(spec, teacher=_teacher(spec, model, found, teacher, of_teacher))
    if of_teacher:
        raise ConfigError(f"{TEACHER}.{next(iter(of_teacher))} needs a teacher: --teacher RUN|MODEL")
    return spec


def _teacher(
    spec: RunSpec, model: LanguageModel, tokenizer: Tokenizer, path: str | Path, settings: Mapping[str, Any]
) -> Teacher:
    """Make the settings of the teacher of `model`. Raises an `LmzooError` if it does not fit."""
    loaded, its_tokenizer, _ = load_run(path)
    teacher = configs.build(Teacher, {"path": str(path), "sha256": fingerprint(loaded), **settings}, where=TEACHER)
    require_teacher(path, loaded, its_tokenizer, tokenizer, spec.config["context_length"])
    if steps := teacher.match_steps:
        where = f"{TEACHER}.match_steps={steps}"
        configs.require(steps <= spec.train.steps, f"{where} must be at most steps={spec.train.steps}")
        configs.require(not spec.train.compile, f"{where} cannot be combined with compile=True")
        fits = _shapes(model) == _shapes(loaded)
        configs.require(fits, f"{where}: the teacher {path} must have as many layers of the same width")
    return teacher


def load(origin: Origin, tokenizer: str | None = None) -> Run:
    """Load the model of a run's config.toml. Raises `CheckpointError` if it has changed since."""
    found = load_run(origin.path, tokenizer)
    if fingerprint(found.model) != origin.sha256:
        raise CheckpointError(f"{origin.path}: has changed since the run was made: its weights have another SHA-256")
    return found


def load_start(start: Start) -> LanguageModel:
    """Load the model that a run starts from."""
    return load(start, start.tokenizer).model


def load_teacher(teacher: Teacher, tokenizer: Tokenizer, context_length: int) -> LanguageModel:
    """Load the teacher of a run, in eval mode and without gradients. Raises an `LmzooError` if it does not fit."""
    model, its_tokenizer, _ = load(teacher)
    require_teacher(teacher.path, model, its_tokenizer, tokenizer, context_length)
    return model.requires_grad_(False)


def require_teacher(
    path: str | Path, model: LanguageModel, its_tokenizer: Tokenizer, tokenizer: Tokenizer, context_length: int
) -> None:
    """Raise `ConfigError` unless a teacher has the vocabulary of its student, and can read its sequences."""
    if its_tokenizer.sha256 != tokenizer.sha256:
        raise ConfigError(f"teacher={path}: its tokenizer differs: a teacher must have the tokenizer of the model")
    if not model.traits.extrapolates and model.config.context_length < context_length:
        have = model.config.context_length
        raise ConfigError(f"teacher={path}: its context_length={have} must be at least {context_length}")


def make_objective(spec: RunSpec, model: LanguageModel, tokenizer: Tokenizer, world_size: int) -> Objective:
    """Make the objective of a run, which may have a teacher. Raises an `LmzooError` for one that cannot be used."""
    teacher = spec.teacher
    if teacher is None:
        return cross_entropy
    if teacher.match_steps and world_size > 1:  # DDP waits for gradients of the head, which has none
        raise ConfigError(f"{TEACHER}.match_steps={teacher.match_steps} needs one process, not {world_size}")
    loaded = load_teacher(teacher, tokenizer, model.config.context_length)
    return Distillation(model, loaded.to(model.device), teacher)


def freeze(model: LanguageModel, trained: str) -> None:
    """Let only the `trained` parameters of a model learn. Raises `ConfigError` if it has no new ones."""
    if trained == "all":
        return
    parts: Any = getattr(model, "new_parts", list)()
    new = {id(parameter) for part in parts for parameter in part.parameters() if parameter.requires_grad}
    if not new:
        raise ConfigError(f"start.trained={trained!r}: {model.family} has no transplanted mixers")
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in new)


@torch.no_grad()
def _shapes(model: LanguageModel) -> list[tuple[int, ...]]:
    """Returns the shapes of the features after each block of a model in eval mode, for one token."""
    with features(model) as found:
        model(torch.zeros(1, 1, dtype=torch.long, device=model.device))
    return [tuple(x.shape) for x in found]
