"""Specification of a run: model, text, tokenizer and training settings, with `--set` overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lmzoo import configs, registry
from lmzoo.data.corpora import require_name
from lmzoo.data.hf_dataset import is_streamed, parse_spec
from lmzoo.data.tokenizers import check_spec
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.runs.origin import Start, Teacher
from lmzoo.train.config import TrainConfig

DEFAULT_DATA = "pydocs"
DEFAULT_TOKENIZER = "char"
STREAM_TOKENIZER = "byte"  # replaces char: the characters of a stream are not known before it is read
ANY_VOCAB_SIZE = 256  # to check a model's settings before the tokenizer is made: no rule depends on the number


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """All settings that decide the outcome of a run.

    `model` is `family` or `family.preset`; `config` overrides settings of the preset (without `vocab_size`, which
    follows from the tokenizer); `data` is an argument of `--data`; `tokenizer` is the spec of a tokenizer. A run with a
    `start` has the weights and the tokenizer of a trained model, and may learn from a `teacher`.
    """

    model: str
    data: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = DEFAULT_TOKENIZER
    train: TrainConfig = field(default_factory=TrainConfig)
    start: Start | None = None  # None: new weights
    teacher: Teacher | None = None

    def __repr__(self) -> str:
        changed = "".join(f", {name}={value!r}" for name, value in self.config.items())
        return f"<run of {self.model} on {self.data}{changed}, {self.train.steps} steps, tokenizer {self.tokenizer}>"

    def model_config(self, vocab_size: int) -> ModelConfig:
        """Return the full config of the model. Raises `ConfigError` and `UnknownModelError`."""
        return registry.model_config(self.model, **self.config, vocab_size=vocab_size)

    def make_model(
        self,
        vocab_size: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> LanguageModel:
        """Create the model with new weights, see `registry.create_model`."""
        settings: dict[str, Any] = {**self.config, "vocab_size": vocab_size}
        return registry.create_model(self.model, generator=generator, device=device, **settings)


def make_spec(
    model: str, data: str, *, tokenizer: str | None = None, overrides: Mapping[str, Any] | None = None
) -> RunSpec:
    """Make the spec of a run of `model` with the recipe of its preset, changed by `overrides` (see `apply_settings`).

    Checks everything that can be checked without the text. Raises `ConfigError`, `UnknownModelError` or `DataError`,
    one line each.
    """
    recipe = registry.recipe(model)
    own_tokenizer = recipe.pop("tokenizer", DEFAULT_TOKENIZER)
    chosen = own_tokenizer if tokenizer is None else tokenizer
    check_spec(chosen)
    require_name(data)
    if is_streamed(data):
        parse_spec(data)
        if tokenizer == "char":
            raise ConfigError(
                "tokenizer='char' knows only the characters it was made from, but a stream may contain others: "
                "use byte, bpe:N or char+unk"
            )
        chosen = STREAM_TOKENIZER if chosen == "char" else chosen
    config, train = apply_settings(model, overrides or {})
    spec = RunSpec(
        model=model,
        data=data,
        config=config,
        tokenizer=chosen,
        train=configs.build(TrainConfig, {**recipe, **train}),
    )
    spec.model_config(ANY_VOCAB_SIZE)
    return spec


def apply_settings(model: str, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide `overrides` into settings of the model and settings of the training.

    A key is `model.NAME`, `train.NAME`, or NAME if only one of the two has this setting. Raises `ConfigError` with the
    most similar name for an unknown key.
    """
    cls = registry.model_class(registry.split_name(model)[0].name).config_class
    tables = {"model": cls, "train": TrainConfig}
    names = {table: [f.name for f in dataclasses.fields(kind)] for table, kind in tables.items()}
    found: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
    for key, value in overrides.items():
        table, dot, name = key.partition(".")
        if dot and table in tables:
            if name not in names[table]:
                raise ConfigError(f"{key}={value!r} is not a setting{configs.suggest(name, names[table])}")
        else:
            owners = [table for table in tables if key in names[table]]
            if not owners:
                known = [*names["model"], *names["train"]]
                raise ConfigError(
                    f"{key}={value!r} is not a setting of {model} or the training{configs.suggest(key, known)}"
                )
            if len(owners) > 1:
                raise ConfigError(f"{key}={value!r} is a setting of both: say model.{key} or train.{key}")
            table, name = owners[0], key
        if (table, name) == ("model", "vocab_size"):
            raise ConfigError(f"vocab_size={value!r} cannot be set: the tokenizer decides it")
        found[table][name] = value
    return found["model"], found["train"]
