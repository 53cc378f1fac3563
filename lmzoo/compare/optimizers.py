"""Optimizers as an axis of a comparison: `--optimizers adamw,muon` trains each model with each of them.

A row of the table is then a model with an optimizer, called "llama.tiny+muon". The best learning rate of an optimizer
says nothing of another one's, so the learning rate must be tuned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from lmzoo import configs
from lmzoo.compare.tune import RATE, Grid
from lmzoo.errors import ConfigError
from lmzoo.runs.spec import ANY_VOCAB_SIZE, RunSpec
from lmzoo.train.config import OptimizerName
from lmzoo.train.muon import DIMENSIONS

OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)


def parse_optimizers(text: str, grids: Sequence[Grid], settings: Mapping[str, Any]) -> list[str]:
    """Parse "adamw,muon". Raises `ConfigError`, also if no learning rate is tuned, or an optimizer is set."""
    names = [name.strip() for name in text.split(",")] if isinstance(text, str) else []
    for name in names:
        if name not in OPTIMIZERS:
            raise ConfigError(f"optimizers={text!r}: {name!r} is not an optimizer{configs.suggest(name, OPTIMIZERS)}")
    if len(set(names)) < max(2, len(names)):
        raise ConfigError(f"optimizers={text!r} needs two different optimizers at least, as in 'adamw,muon'")
    if all(grid.setting != RATE for grid in grids):
        raise ConfigError(f"optimizers={text!r} needs tune='learning_rate': each optimizer has another best rate")
    for key, value in settings.items():
        if key.rpartition(".")[2] == "optimizer":
            raise ConfigError(f"{key}={value!r} cannot be given: optimizers={text!r} sets it")
    return names


def with_optimizers(specs: Sequence[RunSpec], optimizers: Sequence[str]) -> dict[str, RunSpec]:
    """Return a spec for each model and optimizer, by the name of its row.

    A model without gradients has one, and so has a model without matrices, which Muon leaves to AdamW as a whole.
    """
    found: dict[str, RunSpec] = {}
    for spec in specs:
        model = spec.make_model(ANY_VOCAB_SIZE, device="meta")
        if not model.traits.trainable:
            found[spec.model] = spec
            continue
        if DIMENSIONS.keys().isdisjoint(group["role"] for group in model.parameter_groups(0.0)):
            found[spec.model] = dataclasses.replace(spec, train=dataclasses.replace(spec.train, optimizer="adamw"))
            continue
        for name in optimizers:
            train = dataclasses.replace(spec.train, optimizer=cast(OptimizerName, name))
            found[f"{spec.model}+{name}"] = dataclasses.replace(spec, train=train)
    return found
