"""Run directory and its config.toml, which records model, training settings, data and machine of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lmzoo import __version__, configs, files
from lmzoo.data.conventions import FILES as CONVENTIONS
from lmzoo.data.corpora import Corpus, is_pattern
from lmzoo.data.embedded import EMBEDDED
from lmzoo.data.store import TokenSplit
from lmzoo.data.streaming import StreamedCorpus
from lmzoo.data.tokenizers import TOKENIZER_FILE, Tokenizer
from lmzoo.errors import CheckpointError, ConfigError, DataError
from lmzoo.model import LanguageModel
from lmzoo.ops.kernels import kernels_used
from lmzoo.runs.origin import START, TEACHER, Start, Teacher
from lmzoo.runs.spec import RunSpec, apply_settings
from lmzoo.runs.validation import VALIDATION_FILE, write_validation
from lmzoo.storage import atomic, checkpoints, reading
from lmzoo.storage.names import PART_BYTES, PATH_BYTES, TEMPORARY
from lmzoo.train.config import ResolvedTrainConfig
from lmzoo.train.precision import resolve_precision
from lmzoo.train.schedule import decay_start

CONFIG_FILE = "config.toml"
FORMAT = 2  # version of config.toml; version 1 had no version number and did not record derived settings
_PATHS = {"data": ("data",), START: ("path", "tokenizer"), TEACHER: ("path",)}  # settings that name a place
_BEFORE_CONFIG = {  # left by an early kill
    *(TOKENIZER_FILE, f".{TOKENIZER_FILE}.writing", VALIDATION_FILE, f".{VALIDATION_FILE}.writing"),
    *(name for file in CONVENTIONS for name in (file, f".{file}.writing")),
    f".{CONFIG_FILE}.writing",
}


def check_directory(folder: Path, content: str, *, found: bool, leftovers: Collection[str] = ()) -> None:
    """Raise `ConfigError` unless `folder` can be written, and is new, empty, or holds a `content` (`found`).

    Files whose names are in `leftovers` are ignored. `content` ("run", "comparison") is used in the message.
    """
    _require_usable_name(folder)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"out={folder} exists and is not a directory")
    if not found and os.path.isdir(folder) and any(path.name not in leftovers for path in folder.iterdir()):
        raise ConfigError(f"out={folder} exists, is not empty, and holds no {content}")
    above = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), folder)
    if not os.path.isdir(above) or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"out={folder} cannot be written: {above} is read-only or not a directory")


def _require_usable_name(folder: Path) -> None:
    """Raise `ConfigError` for a name that cannot be made, before a folder above it is made."""
    try:
        name = str(folder).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"out={folder} must be a name in UTF-8") from None
    if b"\0" in name or len(name) > PATH_BYTES or any(len(part.encode()) > PART_BYTES for part in folder.parts):
        raise ConfigError(f"out={folder} is too long for a name of a directory, or has a NUL character")


def find_run(run: Path, *, resume: bool) -> bool:
    """Return True if the directory holds a run to be resumed. Raises `ConfigError` if it cannot be used.

    A run without a checkpoint, which diverged or was killed early, is resumed with `resume` and begins anew without it.
    """
    _require_usable_name(run)
    found = os.path.isfile(run / CONFIG_FILE)
    saved = found and has_checkpoint(run)
    if saved and not resume:
        raise ConfigError(f"out={run} holds a run already: --resume continues it, --out names another directory")
    check_directory(run, "run", found=found, leftovers=_BEFORE_CONFIG)
    return found and resume


def has_checkpoint(run: Path) -> bool:
    """Return True if any checkpoint was committed, damaged or not. Raises `CheckpointError`."""
    folder = run / checkpoints.FOLDER
    try:
        return os.path.lexists(folder) and any(not path.name.endswith(TEMPORARY) for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {files.reason(error)}") from error


def make_tables(
    spec: RunSpec,
    corpus: Corpus | StreamedCorpus,
    tokenizer: Tokenizer,
    model: LanguageModel,
    world_size: int,
) -> dict[str, Any]:
    """Make the content of config.toml: all settings that decide the outcome, and the machine. None becomes "none"."""
    origins = {START: spec.start, TEACHER: spec.teacher}
    return {
        "lmzoo": FORMAT,
        "model": {"name": spec.model, **configs.to_table(model.config)},
        "train": configs.to_table(spec.train),
        "data": data_table(spec, corpus, tokenizer),
        **{name: configs.to_table(origin) for name, origin in origins.items() if origin is not None},
        "machine": {
            "precision": resolve_precision(spec.train.precision, model, spec.train.batch_size),
            "world_size": world_size,
            "device": model.device.type,
            "kernels": kernels_used(model.device),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "lmzoo": __version__,
        },
    }


def data_table(spec: RunSpec, corpus: Corpus | StreamedCorpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Make the table [data] of config.toml."""
    return {
        "data": spec.data,
        **text_hashes(corpus),
        "tokenizer": spec.tokenizer,
        "tokenizer_sha256": tokenizer.sha256,
    }


def text_hashes(corpus: Corpus | StreamedCorpus) -> dict[str, str]:
    """Return the recorded hashes of a text: `validation_sha256` only if near-duplicates were removed."""
    val_sha256 = corpus.val_sha256 if isinstance(corpus, Corpus) else ""
    return {"corpus_sha256": corpus.sha256, **({"validation_sha256": val_sha256} if val_sha256 else {})}


def keeps_near_duplicates(tables: Mapping[str, Any]) -> bool:
    """Return True if the validation split of a run, whose text is to be read again, is one with its near-duplicates."""
    return "validation_sha256" not in tables["data"]


def read_tables(run: Path) -> dict[str, Any]:
    """Read the tables of config.toml, of any version up to `FORMAT`. Raises `CheckpointError` for any other file."""
    path = run / CONFIG_FILE
    if not os.path.lexists(path):
        raise CheckpointError(f"{run}: is not a run: it has no {CONFIG_FILE}")
    for file in (path, run / TOKENIZER_FILE):
        reading.regular_size(file)  # refuses links, which may lead out of the run
    tables = configs.load_toml(path)
    if tables.get("lmzoo", 1) not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"{path}: lmzoo={tables['lmzoo']!r} must be at most {FORMAT}: a newer version than {__version__} wrote it"
        )
    for name in ("model", "train", "data", "machine"):
        if not isinstance(tables.get(name), dict):
            raise CheckpointError(f"{path}: has no table [{name}]")
    precision = tables["machine"].get("precision")
    if precision not in ("float32", "bf16"):
        raise CheckpointError(f"{path}: machine.precision={precision!r} must be 'float32' or 'bf16'")
    return tables


def train_config(run: Path, tables: Mapping[str, Any]) -> ResolvedTrainConfig:
    """Return the training settings that config.toml records. Raises `ConfigError`."""
    return configs.build(ResolvedTrainConfig, tables["train"], where=str(run / CONFIG_FILE))


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
    settings.pop("vocab_size", None)
    config, train = apply_settings(name, overrides)
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


def own_data(run: Path) -> str:
    """Return the text that a run was trained on, as `load_data` takes it. Raises `DataError` for a pattern.

    A run may come from somebody else: a pattern such as "/**" in it would read the whole disk.
    """
    data = read_tables(run)["data"].get("data")
    if not isinstance(data, str) or is_pattern(data):
        raise DataError(f"{run}: was trained on data={data!r}, a pattern: give the text with --data")
    return data


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
            old = configs.to_table(
                train_config(run, before)
            )  # adds the defaults of settings that are newer than the run
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


def create(run: Path, tables: Mapping[str, Any], tokenizer: Tokenizer, val: TokenSplit) -> None:
    """Write the tokenizer, the validation tokens and then config.toml, which makes a directory a run.

    A run without a checkpoint is replaced.
    """
    if os.path.lexists(run / CONFIG_FILE) and has_checkpoint(run):
        raise ConfigError(f"out={run} holds a run already, which another process has just made")
    for name, text in tokenizer.files().items():
        atomic.write_file(run / name, text)
    write_validation(run, val)
    write_tables(run, tables)


def write_tables(run: Path, tables: Mapping[str, Any]) -> None:
    """Write config.toml. Raises `CheckpointError` when the disk refuses."""
    atomic.write_file(run / CONFIG_FILE, configs.dump_toml(tables))
