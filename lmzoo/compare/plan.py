"""Plans a comparison: makes one run spec for each model, all with the same budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo import registry
from lmzoo.data.corpora import refuse_stream
from lmzoo.errors import ConfigError
from lmzoo.runs.spec import ANY_VOCAB_SIZE, RunSpec, apply_settings, make_spec
from lmzoo.train.config import TrainConfig

RUNS = "runs"
BUDGET = (
    "steps",
    "batch_size",
    "grad_accumulation",
    "seed",
)  # these and the context length are the same for all models


def make_specs(names: Sequence[str], data: str, tokenizer: str, settings: Mapping[str, Any]) -> list[RunSpec]:
    """Make one spec for each model, all with one budget; the rest of the recipe is the preset's, changed by `settings`.

    Parts of the budget that are missing in `settings` are the defaults of `TrainConfig`, and for the context length the
    shortest one of all models. A setting that only some models have applies to these. Raises `ConfigError`,
    `UnknownModelError` or `DataError`, one line each.
    """
    refuse_stream(data)  # first: `make_spec` would complain about the tokenizer of a stream
    if not names:
        raise ConfigError("names is empty: name at least one model to compare")
    for name in names:
        if list(names).count(name) > 1:
            raise ConfigError(f"model {name!r} is named twice: each is compared once")
    if {"eval_tokens", "train.eval_tokens"} & settings.keys():
        raise ConfigError("eval_tokens cannot be set in a comparison: every model is evaluated on the whole split")
    own = [make_spec(name, data, tokenizer=tokenizer).model_config(ANY_VOCAB_SIZE).context_length for name in names]
    default = TrainConfig()
    budget = {f"train.{field}": getattr(default, field) for field in BUDGET} | {"model.context_length": min(own)}
    for key, value in budget.items():
        budget[key] = settings.get(key, settings.get(key.partition(".")[2], value))
    bare = {key.partition(".")[2] for key in budget}
    others = {key: value for key, value in settings.items() if key not in budget and key not in bare}
    return [
        make_spec(name, data, tokenizer=tokenizer, overrides=budget | chosen | {"train.eval_tokens": 0})
        for name, chosen in zip(names, _divide(names, others), strict=True)
    ]


def cut_contexts(specs: Sequence[RunSpec]) -> dict[str, int]:
    """Return the context length of its own preset for each model whose context is shorter in the comparison."""
    own = {spec.model: registry.model_config(spec.model, vocab_size=ANY_VOCAB_SIZE).context_length for spec in specs}
    used = {spec.model: spec.model_config(ANY_VOCAB_SIZE).context_length for spec in specs}
    return {name: length for name, length in own.items() if used[name] < length}


def _divide(names: Sequence[str], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Divide `settings` among the models by the settings that each has. Raises `ConfigError` if no model has one."""
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
