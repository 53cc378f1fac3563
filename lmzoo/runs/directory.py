"""Run directory and its config.toml, which records model, training settings, data and machine of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from lmzoo import __version__, configs, files
from lmzoo.data.conventions import FILES as CONVENTIONS
from lmzoo.data.corpora import Corpus, is_pattern
from lmzoo.data.store import TokenSplit
from lmzoo.data.streaming import StreamedCorpus
from lmzoo.data.tokenizers import TOKENIZER_FILE, Tokenizer
from lmzoo.errors import CheckpointError, ConfigError, DataError
from lmzoo.model import LanguageModel
from lmzoo.ops.kernels import kernels_used
from lmzoo.runs.origin import START, TEACHER
from lmzoo.runs.spec import RunSpec
from lmzoo.runs.validation import VALIDATION_FILE, write_validation
from lmzoo.storage import atomic, checkpoints, reading
from lmzoo.storage.names import PART_BYTES, PATH_BYTES, TEMPORARY
from lmzoo.train.config import ResolvedTrainConfig
from lmzoo.train.precision import resolve_precision

CONFIG_FILE = "config.toml"
FORMAT = 2  # version of config.toml; version 1 had no version number and did not record derived settings
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
    if not os.path.lexists(run):
        raise CheckpointError(f"{run}: there is no such run or checkpoint")
    if not os.path.lexists(path):
        raise CheckpointError(f"{run}: is not a run: it has no {CONFIG_FILE}")
    for file in (path, run / TOKENIZER_FILE):
        reading.regular_size(file)  # refuses links, which may lead out of the run
    tables = configs.load_toml(path)
    version = tables.get("lmzoo", 1)
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path}: lmzoo={version!r} must be a positive integer, the version of the file")
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: lmzoo={version} must be at most {FORMAT}: a newer version than {__version__} wrote it"
        )
    for name in ("model", "train", "data", "machine"):
        if not isinstance(tables.get(name), dict):
            raise CheckpointError(f"{path}: has no table [{name}]")
    precision = tables["machine"].get("precision")
    if precision not in ("float32", "bf16"):
        raise CheckpointError(f"{path}: machine.precision={precision!r} must be 'float32' or 'bf16'")
    world_size = tables["machine"].get("world_size", 1)
    if type(world_size) is not int or world_size < 1:
        raise CheckpointError(f"{path}: machine.world_size={world_size!r} must be a positive integer")
    return tables


def train_config(run: Path, tables: Mapping[str, Any]) -> ResolvedTrainConfig:
    """Return the training settings that config.toml records. Raises `ConfigError`."""
    return configs.build(ResolvedTrainConfig, tables["train"], where=str(run / CONFIG_FILE))


def own_data(run: Path) -> str:
    """Return the text that a run was trained on, as `load_data` takes it. Raises `DataError` for a pattern.

    A run may come from somebody else: a pattern such as "/**" in it would read the whole disk.
    """
    data = read_tables(run)["data"].get("data")
    if not isinstance(data, str) or is_pattern(data):
        raise DataError(f"{run}: was trained on data={data!r}, a pattern: give the text with --data")
    return data


def create(run: Path, tables: Mapping[str, Any], tokenizer: Tokenizer, val: TokenSplit) -> None:
    """Write the tokenizer, the validation tokens and then config.toml, which makes a directory a run.

    A run without a checkpoint is replaced. Raises `ConfigError` if another process has just made a run here.
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
