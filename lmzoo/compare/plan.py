"""Plans a comparison: makes one run spec for each model, all with the same budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmzoo import registry
from lmzoo.data.corpora import refuse_stream
from lmzoo.errors import ConfigError
from lmzoo.runs.directory import read_tables
from lmzoo.runs.resuming import read_spec
from lmzoo.runs.saved import is_run
from lmzoo.runs.spec import ANY_VOCAB_SIZE, RunSpec, apply_settings, make_spec
from lmzoo.storage import checkpoints
from lmzoo.train.checkpoint import read_state
from lmzoo.train.config import TrainConfig

BUDGET = (
    "steps",
    "batch_size",
    "grad_accumulation",
    "documents",
    "seed",
)  # these and the context length are the same for all models


def make_specs(names: Sequence[str], data: str, tokenizer: str, settings: Mapping[str, Any]) -> list[RunSpec]:
    """Make one spec for each model, all with one budget; the rest of the recipe is the preset's, changed by `settings`.

    Parts of the budget that are missing in `settings` are the defaults of `TrainConfig`, and for the context length the
    shortest one of all models. A setting that only some models have applies to these, and `FAMILY.SETTING` or
    `FAMILY.PRESET.SETTING` to the models of this name. Raises `ConfigError`,
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
    """Return the context length of its own preset for each model whose context is shorter in the comparison.

    A model that never looks back further than the shorter one, such as bigram, loses nothing.
    """
    found: dict[str, int] = {}
    for spec in specs:
        own = registry.model_config(spec.model, vocab_size=ANY_VOCAB_SIZE).context_length
        used = spec.model_config(ANY_VOCAB_SIZE).context_length
        if used < own:
            try:
                field = spec.make_model(ANY_VOCAB_SIZE, device="meta").traits.receptive_field
            except Exception:  # a plug-in that raises: the comparison goes on, and its row gives the reason
                field = None
            if field is None or field > used:
                found[spec.model] = own
    return found


def _divide(names: Sequence[str], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Divide `settings` among the models by the settings that each has. Raises `ConfigError` if no model has one.

    `mamba.d_state` is for models of the family `mamba` only, and `mamba.tiny.d_state` for this preset; these override
    what is set for all models.
    """
    found: list[dict[str, Any]] = [{} for _ in names]
    own_settings = {key: owner for key in settings if (owner := _owner(key)) is not None}
    for key, value in settings.items():
        if key in own_settings:
            continue
        errors: list[ConfigError] = []
        for name, own in zip(names, found, strict=True):
            try:
                apply_settings(name, {key: value})
                own[key] = value
            except ConfigError as error:
                errors.append(error)
        if len(errors) == len(names):
            raise errors[0]
    for key, owner in sorted(own_settings.items(), key=lambda item: item[1].count(".")):
        setting, value = key.removeprefix(f"{owner}."), settings[key]
        owned = [n for n, name in enumerate(names) if owner in (name, name.partition(".")[0])]
        if not owned:
            raise ConfigError(f"{key}={value!r}: {owner} is not among the compared models: {', '.join(names)}")
        if setting.rpartition(".")[2] in (*BUDGET, "context_length", "eval_tokens"):
            raise ConfigError(f"{key}={value!r}: all models of a comparison have the same {setting}")
        for n in owned:
            model, train = apply_settings(names[n], {setting: value})
            full = {f"model.{name}": value for name, value in model.items()}
            full |= {f"train.{name}": value for name, value in train.items()}
            for name in full:
                found[n].pop(name.partition(".")[2], None)
            found[n] |= full
    return found


def _owner(key: str) -> str | None:
    """Return the family or preset that a setting such as "mamba.d_state" or "mamba.tiny.d_state" is for."""
    family, _, rest = key.partition(".")
    entry = registry.families().get(family)
    if entry is None or not rest or family in ("model", "train"):  # these are the tables of all settings
        return None
    preset, dot, _ = rest.partition(".")
    return f"{family}.{preset}" if dot and preset in entry.presets else family


def are_runs(names: Sequence[str]) -> bool:
    """Return True if `names` are run directories, not names of models. Raises `ConfigError` for a mixture."""
    models = registry.list_models()
    runs = [name for name in names if isinstance(name, str) and name not in models and is_run(name)]
    if runs and len(runs) < len(names):
        other = next(name for name in names if name not in runs)
        raise ConfigError(f"{other} is not a run, but {runs[0]} is: a comparison takes finished runs, or trains models")
    return bool(runs)


def read_specs(
    runs: Sequence[str], data: str | None, tokenizer: str | None, settings: Mapping[str, Any]
) -> list[RunSpec]:
    """Read the specs of finished runs, which must have one budget, one text and one tokenizer.

    Raises an `LmzooError` of one line for runs that cannot be compared.
    """
    if settings or tokenizer is not None:
        given = f"tokenizer={tokenizer!r}" if tokenizer is not None else next(f"{k}={v!r}" for k, v in settings.items())
        raise ConfigError(f"{given} cannot be set: {runs[0]} is a finished run")
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise ConfigError("runs: one of them is named twice: each is compared once")
    specs = [read_spec(Path(run), {}, data=data) for run in runs]
    for run, spec in zip(runs, specs, strict=True):
        refuse_stream(spec.data)
        state = read_state(checkpoints.find(run))
        if state.step < spec.train.steps or state.val_step != state.step:
            raise ConfigError(
                f"{run} is at step {state.step} of {spec.train.steps}: lmzoo train --resume {run} finishes it"
            )
    facts = [_facts(Path(run), spec) for run, spec in zip(runs, specs, strict=True)]
    for run, own in zip(runs, facts, strict=True):
        for name, value in own.items():
            if value != facts[0][name]:
                raise ConfigError(
                    f"{runs[0]} was made with {name}={facts[0][name]!r}, {run} with {value!r}: a comparison needs the "
                    "same; lmzoo eval RUN RUN evaluates each of them"
                )
    return specs


def _facts(run: Path, spec: RunSpec) -> dict[str, Any]:
    """Return what all runs of a comparison must share: budget, text, tokenizer, and whether they had new weights."""
    budget = {name: getattr(spec.train, name) for name in BUDGET}
    recorded = read_tables(run)["data"]
    hashes = {name: recorded.get(name) for name in ("corpus_sha256", "validation_sha256", "tokenizer_sha256")}
    start = "new weights" if spec.start is None else "a trained model"
    context_length = spec.model_config(ANY_VOCAB_SIZE).context_length
    return budget | {"start": start, "context_length": context_length} | hashes
