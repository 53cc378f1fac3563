"""What will be compared: one run spec for each model, all of one budget, and a directory that may be written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmzoo.compare.results import FILE
from lmzoo.data.corpora import refuse_stream
from lmzoo.errors import ConfigError
from lmzoo.runs.spec import RunSpec, apply_settings, make_spec
from lmzoo.train.config import TrainConfig

RUNS = "runs"
BUDGET = ("steps", "batch_size", "grad_accumulation", "seed")  # of the training; with the context length, equal for all


def make_specs(names: Sequence[str], data: str, tokenizer: str, settings: Mapping[str, Any]) -> list[RunSpec]:
    """One spec for each model, of one budget; the rest of the recipe is the preset's, changed by `settings`.

    What `settings` leave open of the budget is `TrainConfig`'s default, and for the context the shortest of the models'
    own. A setting that only some of the models have goes to those. Raises `ConfigError`, `UnknownModelError` or
    `DataError`, one line each.
    """
    refuse_stream(data)  # before what is said of a stream's tokenizer
    if not names:
        raise ConfigError("names is empty: name at least one model to compare")
    for name in names:
        if list(names).count(name) > 1:
            raise ConfigError(f"model {name!r} is named twice: each is compared once")
    if {"eval_tokens", "train.eval_tokens"} & settings.keys():
        raise ConfigError("eval_tokens cannot be set in a comparison: every model is judged on the whole split")
    own = [make_spec(name, data, tokenizer=tokenizer).model_config(256).context_length for name in names]
    default = TrainConfig()
    budget = {f"train.{field}": getattr(default, field) for field in BUDGET} | {"model.context_length": min(own)}
    for key, value in budget.items():
        budget[key] = settings.get(key, settings.get(key.partition(".")[2], value))
    bare = {key.partition(".")[2] for key in budget}
    others = {key: value for key, value in settings.items() if key not in budget and key not in bare}
    return [
        make_spec(name, data, tokenizer=tokenizer, overrides=budget | chosen | {"train.eval_tokens": None})
        for name, chosen in zip(names, _divide(names, others), strict=True)
    ]


def check_directory(folder: Path) -> None:
    """Raise `ConfigError` unless `folder` is new, empty, or holds a comparison, and can be written."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out={folder} exists and is not a directory")
    if folder.exists() and any(folder.iterdir()) and not ((folder / FILE).is_file() or (folder / RUNS).is_dir()):
        raise ConfigError(f"out={folder} exists, is not empty, and holds no comparison")
    above = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"out={folder} cannot be written: {above} is read-only or not a directory")


def _divide(names: Sequence[str], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each model those of the settings that it, or the training, has. One that no model has is an error."""
    found: list[dict[str, Any]] = [{} for _ in names]
    for key, value in settings.items():
        errors: list[ConfigError] = []
        for name, own in zip(names, found, strict=True):
            try:
                apply_settings(name, {key: value})
                own[key] = value
            except ConfigError as error:
                errors.append(error)
        if len(errors) == len(names):
            raise errors[0]
    return found
