"""Reads results.json again: as `Results`, and as flat records for pandas."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lmzoo import arguments, files
from lmzoo.compare.probe_tables import record_fields
from lmzoo.compare.results import FILE, SCHEMA, CellResult, ModelResult, Reference, Results, Yardstick
from lmzoo.compare.statistics import Mean, Pair, Statistics
from lmzoo.compare.tune import SETTINGS
from lmzoo.errors import ConfigError, InputError
from lmzoo.matching import MEASURES

Made = TypeVar("Made")
_MAX_BYTES = 1 << 28
_SPLIT = {"documents": int, "tokens": int}
# The keys, and types of their values, that table and report need of the fields that are mappings.
_KEYS: Mapping[str, Any] = {
    "corpus": {
        "name": str,
        "sha256": str,
        "origin": str,
        "overlap": {"text": str},
        "train_tokens": int,
        "val_tokens": int,
    },
    "tokenizer": {"spec": str, "vocab_size": int, "sha256": str},
    "budget": {"steps": int, "batch_size": int, "context_length": int, "tokens": int},
    "hardware": {"device": str, "threads": int},
    "versions": {"lmzoo": str},
}
_TUNING = {"setting": str, "values": list, "most_added": int, "selection": _SPLIT, "report": _SPLIT, "models": dict}
_SEARCH = {"setting": str, "values": list, "models": dict}
_HALVING = {"parts": list, "tokens": int, "saved_tokens": int, "saved_share": float}
_LOSS = int | float | None
_TRIAL = {"value": float, "run": str, "status": str, "selection_loss": _LOSS}
_MODEL = {"chosen": float, "at_end": bool, "tried": list}
_PROTOCOL = {
    "split": str,
    "documents": str,
    "context": str,
    "context_length": int,
    "stride": int,
    "targets": int,
}
_CARRIED = {"rows": int, "longest_row": int, "states": dict}
_PROBES = {"steps": int, "batch_size": int, "levels": list, "cells": list}
_PROBED = {"accuracy_trained": _LOSS, "accuracy_tested": _LOSS}
_MATCH = {"measure": str, "target": float, "models": dict}
_MATCHED = {"value": float, "error": float}
_POSITIONS = {"first": int, "last": int, "loss": _LOSS, "tokens": int}
_CLASS = {"name": str, "loss": _LOSS, "tokens": int}
# Of a model, not of a seed, or long: they are no part of a record, or come from the model.
_LONG = ("curve", "sample", "config", "cells", "checks", "by_position", "by_class")


def load_results(folder: str | Path) -> Results:
    """Read `folder/results.json`. Raises `InputError` of one line for a file that `lmzoo compare` has not written."""
    path = arguments.path("folder", folder) / FILE
    try:
        content = files.parse_json(files.read_bytes(path, _MAX_BYTES), finite=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {files.reason(error)}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise InputError(
            f"{path}: schema={found!r} must be {SCHEMA}: it is not a results.json of this version of lmzoo"
        )
    del content["schema"]
    return _build(path, content)


def read_results(folder: str | Path) -> list[dict[str, Any]]:
    """Returns one record for each model and seed of the comparison in `folder`, with flat keys, for `pandas.DataFrame`.

    A record has the figures of the seed; those that a model has only once (sizes, costs, the decoding speed, the rank)
    are repeated. Settings have keys such as `train.learning_rate` and `model.d_model`. A model that failed a check has
    one record without a seed. The keys are described in docs/results.md. Raises `InputError`.
    """
    results = load_results(folder)
    shared = {
        "corpus": results.corpus["name"],
        "tokenizer": results.tokenizer["spec"],
        "vocab_size": results.tokenizer["vocab_size"],
        "context_length": results.budget["context_length"],
    }
    return [
        {**shared, **record} for model in [*results.ranked, *results.unranked] for record in _records(results, model)
    ]


def _records(results: Results, model: ModelResult) -> list[dict[str, Any]]:
    low, high = results.places.get(model.name, (None, None))
    of_model = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in _LONG}
    settings, probed = _flat(model.config), record_fields(results)
    first = {"model": of_model.pop("name"), "seed": None, "rank_low": low, "rank_high": high, **of_model}
    if not model.cells:
        return [{**first, "selection_loss": None, **settings}]
    records = []
    for cell in model.cells:
        of_cell = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell) if f.name not in _LONG}
        seed = {"train.seed": cell.seed} if "train.seed" in settings else {}
        records.append({**first, **of_cell, **settings, **seed, **probed.get((model.name, cell.seed), {})})
    return records


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with keys such as "train.learning_rate"."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": setting for name, setting in value.items()}
        else:
            found[key] = value
    return found


def _build(path: Path, content: Mapping[str, Any]) -> Results:
    """Check the types of all fields; unknown fields, which a newer version wrote, are left out."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Results).validate_python(content)
        results = _made(content)  # not what pydantic returns: it turns integers into floats
    except (ValidationError, RecursionError, OverflowError) as error:
        where, rule = "", "it is nested too deeply"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where, rule = ".".join(map(str, first["loc"])) + ": ", first["msg"].lower()
        raise InputError(f"{path}: {where}{rule}") from None
    for name, keys in _KEYS.items():
        _require(path, name, getattr(results, name), keys)
    rate = results.corpus.get("entropy_rate")
    if rate is not None:
        _require(path, "corpus.entropy_rate", rate, {"nats": float})
    removed = results.corpus.get("near_duplicates")
    if removed is not None:
        _require(path, "corpus.near_duplicates", removed, {"text": str})
    if results.protocol:
        _require(path, "protocol", results.protocol, _PROTOCOL)
    if results.protocol.get("context") == "carried":
        _require(path, "protocol", results.protocol, _CARRIED)
        for name, state in results.protocol["states"].items():
            _require(path, f"protocol.states.{name}", state, {"bytes": int, "growth": str})
    if results.bigram_limits:
        _require(path, "bigram_limits", results.bigram_limits, {"train": float, "val": float})
    for model in results.models:
        _require(path, f"models.{model.name}.config", {"precision": "", **model.config}, {"precision": str})
    _require_losses(path, results)
    if results.match:
        _require_match(path, results.match)
    if results.tuning:
        _require_tuning(path, results.tuning, [model.name for model in results.models])
    if results.probes:
        _require_probes(path, results.probes)
    if results.statistics is not None:
        ranked = {model.name for model in results.models if model.status == "ranked" and model.loss is not None}
        if not ranked == set(results.statistics.ranks) == set(results.statistics.means):
            raise InputError(f"{path}: statistics: they must be of the ranked models")
        for name, places in results.statistics.ranks.items():
            _require_pair(path, f"statistics.ranks.{name}", places, int)
    return results


def _require_match(path: Path, match: Mapping[str, Any]) -> None:
    """Check the sizes of the models."""
    _require(path, "match", match, _MATCH)
    if match["measure"] not in MEASURES:
        raise InputError(f"{path}: match.measure={match['measure']!r} must be one of {', '.join(MEASURES)}")
    for name, found in match["models"].items():
        _require(path, f"match.models.{name}", found, _MATCHED)


def _require_tuning(path: Path, tuning: Mapping[str, Any], models: Sequence[str]) -> None:
    """Check the searches of all settings, which are of some of the `models`."""
    _require(path, "tuning", tuning, _TUNING)
    halving, then = tuning.get("halving"), tuning.get("then", [])
    if halving is not None:
        _require(path, "tuning.halving", halving, _HALVING)
        parts = halving["parts"]
        if len(parts) < 2 or not all(isinstance(part, int | float) and 0 < part <= 1 for part in parts):
            raise InputError(f"{path}: tuning.halving.parts={parts!r} must be a list of at least two shares above 0")
    _require(path, "tuning", {"then": then}, {"then": list})
    for number, search in enumerate([tuning, *then]):
        where = f"tuning.then.{number - 1}" if number else "tuning"
        _require(path, where, search, _SEARCH)
        if search["setting"] not in SETTINGS:  # it is part of the name of a figure, and so of a file
            raise InputError(f"{path}: {where}.setting={search['setting']!r} must be one of {', '.join(SETTINGS)}")
        for name, model in search["models"].items():
            if name not in models:
                raise InputError(f"{path}: {where}.models: {name!r} is not a model of the comparison")
            _require(path, f"{where}.models.{name}", model, _MODEL)
            for trial in model["tried"]:
                _require(path, f"{where}.models.{name}.tried", trial, _TRIAL)
                _require_parts(path, f"{where}.models.{name}.tried", trial, needed=halving is not None)


def _require_probes(path: Path, probes: Mapping[str, Any]) -> None:
    """Check the results of probes."""
    from lmzoo.probing.results import build

    _require(path, "probes", probes, _PROBES)
    try:
        found = build(probes, f"{path}: probes")
    except (ConfigError, TypeError) as error:
        raise InputError(str(error)) from None
    for number, cell in enumerate(probes["cells"]):
        _require(path, f"probes.cells.{number}", cell, _PROBED)
    known = {(level.probe, level.difficulty) for level in found.levels}
    if not known >= {(cell.probe, cell.difficulty) for cell in found.cells}:
        raise InputError(f"{path}: probes: each cell must be of a level that is listed")


def _require_parts(path: Path, where: str, trial: Mapping[str, Any], *, needed: bool) -> None:
    """Check the losses after parts of the training: pairs of a step and a loss."""
    parts = trial.get("parts", [])
    pairs = isinstance(parts, list) and all(isinstance(part, list) and len(part) == 2 for part in parts)
    if not pairs or (needed and not parts):
        raise InputError(f"{path}: {where}.parts={parts!r} must be a list of steps and losses")
    for step, loss in parts:
        _require(path, f"{where}.parts", {"step": step, "loss": loss}, {"step": int, "loss": _LOSS})


def _require_losses(path: Path, results: Results) -> None:
    """Check the losses by position and by class of each model and each of its seeds."""
    for model in results.models:
        for row in (model, *model.cells):
            for point in row.curve:
                _require_pair(path, f"models.{model.name}.curve", point, int | float)
            for part in row.by_position:
                _require(path, f"models.{model.name}.by_position", part, _POSITIONS)
                if not 1 <= part["first"] <= part["last"]:
                    raise InputError(f"{path}: models.{model.name}.by_position: first and last must be a range above 0")
            for part in row.by_class:
                _require(path, f"models.{model.name}.by_class", part, _CLASS)
        if model.by_class and not results.protocol.get("targets"):
            raise InputError(f"{path}: protocol.targets must be a positive number, for the shares of the classes")


def _made(content: Mapping[str, Any]) -> Results:
    """Make the results from checked values."""
    models = [
        _known(ModelResult, row, cells=[_known(CellResult, cell) for cell in row.get("cells", ())])
        for row in content["models"]
    ]
    statistics = content.get("statistics")
    if statistics is not None:
        means = {name: _known(Mean, mean) for name, mean in statistics["means"].items()}
        pairs = [_known(Pair, pair) for pair in statistics["pairs"]]
        statistics = _known(Statistics, statistics, means=means, pairs=pairs)
    references = [_known(Reference, reference) for reference in content.get("references", ())]
    yardsticks = [_known(Yardstick, yardstick) for yardstick in content.get("yardsticks", ())]
    made = {"models": models, "references": references, "yardsticks": yardsticks, "statistics": statistics}
    return _known(Results, content, **made)


def _known(cls: type[Made], table: Mapping[str, Any], **made: Any) -> Made:
    """Make a dataclass of the keys that it has; `made` replaces their values."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{key: value for key, value in table.items() if key in names} | made)


def _require_pair(path: Path, name: str, found: object, kind: Any) -> None:
    """Raise `InputError` unless `found` is a list of two values of a type."""
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(value, kind) for value in found):
        raise InputError(f"{path}: {name}: {found!r} must be a list of two numbers")


def _require(path: Path, name: str, found: object, keys: Mapping[str, Any]) -> None:
    """Raise `InputError` unless `found` is a mapping with these keys, whose values have these types."""
    for key, kind in keys.items():
        value = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(kind, Mapping):
            _require(path, f"{name}.{key}", value, kind)
        elif not isinstance(value, (int, float) if kind is float else kind):
            raise InputError(f"{path}: {name}.{key}={value!r} must be of type {getattr(kind, '__name__', kind)}")
        elif not isinstance(found, Mapping) or key not in found:  # of a value that may be None
            raise InputError(f"{path}: {name}.{key} is missing")
