"""Decides what a resumed run may change: its spec is read from config.toml, and must describe the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmzoo import configs, registry
from lmzoo.data.embedded import EMBEDDED
from lmzoo.errors import CheckpointError, ConfigError, DataError
from lmzoo.runs.directory import CONFIG_FILE, FORMAT, own_data, read_tables, train_config
from lmzoo.runs.origin import START, TEACHER, Start, Teacher
from lmzoo.runs.spec import RunSpec, apply_settings
from lmzoo.storage import checkpoints
from lmzoo.train.config import ResolvedTrainConfig
from lmzoo.train.schedule import decay_start

_PATHS = {"data": ("data",), START: ("path", "tokenizer"), TEACHER: ("path",)}  # settings that name a place


def require_resumable(run: Path, tables: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a run with an older version of config.toml, which does not record every setting."""
    if tables.get("lmzoo", 1) != FORMAT:
        raise ConfigError(
            f"{run}: was made by lmzoo {tables['machine'].get('lmzoo')}, which did not record every setting: it cannot "
            f"be resumed (it can be sampled and evaluated if its weights still load): train in another directory"
        )


def read_spec(
    run: Path,
    overrides: Mapping[str, Any],
    *,
    data: str | None = None,
    tokenizer: str | None = None,
    teacher: str | Path | None = None,
) -> RunSpec:
    """Make the spec that a run was made from, changed by `overrides` (see `apply_settings`), to resume the run.

    `data` replaces the text of the run, which must have the same hash, and `teacher` the path of its teacher, which
    must be the same model. Raises an `LmzooError` of one line, also for a run whose text is a pattern: see `own_data`.
    """
    tables = read_tables(run)
    require_resumable(run, tables)
    settings, trained_on = dict(tables["model"]), tables["data"]
    name = settings.pop("name", None)
    config, train = apply_settings(name, overrides)
    cls = registry.model_class(registry.split_name(name)[0].name).config_class
    configs.build(cls, settings, where=str(run / CONFIG_FILE))  # an error in the file is told with its name
    settings.pop("vocab_size")
    recorded = configs.to_dict(train_config(run, tables))
    return RunSpec(
        model=name,
        data=own_data(run) if data is None else data,
        config={**settings, **config},
        tokenizer=trained_on.get("tokenizer") if tokenizer is None else tokenizer,
        train=configs.build(ResolvedTrainConfig, {**recorded, **train}),
        start=_origin(Start, run, tables.get(START)),
        teacher=_moved(_origin(Teacher, run, tables.get(TEACHER)), run, teacher),
    )


def _origin(cls: type[Any], run: Path, table: Mapping[str, Any] | None) -> Any:
    """Return the settings in a table [start] or [teacher]; None if the run has none. Raises `ConfigError`."""
    if table is not None and not isinstance(table, dict):
        raise CheckpointError(f"{run / CONFIG_FILE}: {table!r} must be a table")
    return None if table is None else configs.build(cls, table, where=str(run / CONFIG_FILE))


def _moved(teacher: Teacher | None, run: Path, path: str | Path | None) -> Teacher | None:
    """Return the teacher of a run, at another path if one is given."""
    if path is None:
        return teacher
    if teacher is None:
        raise ConfigError(f"teacher={path}: the run in {run} was made without a teacher")
    return replace(teacher, path=str(path))


def prolonged(run: Path, tables: Mapping[str, Any], steps: int) -> Mapping[str, Any]:
    """Return the tables of a run with a larger number of steps.

    Raises `ConfigError` if the learning rates of the steps done would have been others in a run of `steps` steps: then
    it would not be the same run.
    """
    config = train_config(run, tables)
    if steps <= config.steps:
        return tables
    done = max((step for step, _ in checkpoints.saved(run)), default=0)
    start = decay_start(config)
    if start is not None and done > start:
        raise ConfigError(
            f"steps={steps}: the run in {run} has schedule={config.schedule!r}, which began to decay after step "
            f"{start}, and is at step {done}: only schedule='constant', or 'wsd' before its decay, can be prolonged"
        )
    return {**tables, "train": {**tables["train"], "steps": steps}}


def require_same(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise an error unless the tables `now` describe the same run as the tables of its config.toml, `before`.

    A training setting that is "none" in `now` was not given: the recorded value is used. The machine and the paths of
    the text, of the model that the run started from and of its teacher may differ.
    """
    for table in ("model", "train", "data", START, TEACHER):
        old, new = before.get(table, {}), now.get(table, {})
        if table == "train":
            # Adds the defaults of settings that are newer than the run.
            old = configs.to_table(train_config(run, before))
        for name in [*new, *(name for name in old if name not in new)]:
            given = name not in _PATHS.get(table, ()) and not (table == "train" and new.get(name) == configs.NONE)
            if given and old.get(name) != new.get(name):
                error = DataError if table == "data" else ConfigError
                raise error(
                    f"{table}.{name}={new.get(name)!r}, but the run in {run} was made with {old.get(name)!r}: "
                    f"resume it as it was, or train in another directory{_python_note(before, now, name)}"
                )


def _python_note(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str:
    """Return the reason if a built-in corpus differs because the run was made with another version of Python."""
    old, new = (tables["machine"].get("python", "an unknown version") for tables in (before, now))
    if name != "corpus_sha256" or now["data"]["data"] not in EMBEDDED or old == new:
        return ""
    return f" ({now['data']['data']} is built from the library of Python, which is {new} here and was {old})"


def require_world_size(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for another number of processes, which would sum gradients in another order."""
    old, new = before["machine"].get("world_size", 1), now["machine"]["world_size"]
    if old != new:
        raise ConfigError(
            f"world_size={new}, but the run was made with {old}: resume it with {old} processes, or add --reshard to "
            f"continue with {new}, which changes the last digits"
        )


def machine_note(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return a message if torch, device, kernels or threads changed, so that resuming is not bitwise exact."""
    old, new = {"kernels": "none", **before["machine"]}, now["machine"]  # runs did not always record their kernels
    changed = [name for name in ("torch", "device", "kernels", "threads") if old.get(name) != new[name]]
    if not changed:
        return None
    what = ", ".join(f"{name} is {new[name]} and was {old.get(name)}" for name in changed)
    return f"the run continues on a different machine ({what}): its numbers may differ in the last bits"
