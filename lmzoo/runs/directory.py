"""What makes a directory a run: its config.toml, which says what the run is made from and on what machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lmzoo import __version__, configs
from lmzoo.data.corpora import Corpus
from lmzoo.data.streaming import StreamedCorpus
from lmzoo.data.tokenizers import TOKENIZER_FILE, Tokenizer
from lmzoo.errors import CheckpointError, ConfigError, DataError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.runs.spec import RunSpec
from lmzoo.storage import atomic
from lmzoo.train.config import TrainConfig
from lmzoo.train.precision import resolve_precision

CONFIG_FILE = "config.toml"
_MAX_BYTES = 256 << 20
_BEFORE_CONFIG = {TOKENIZER_FILE, f".{TOKENIZER_FILE}.writing", f".{CONFIG_FILE}.writing"}  # left by an early kill


def check_directory(run: Path, *, resume: bool) -> bool:
    """Whether a run is there to go on with. Raises `ConfigError` for a directory that cannot be used."""
    if run.exists() and not run.is_dir():
        raise ConfigError(f"out={run} exists and is not a directory")
    if (run / CONFIG_FILE).is_file():
        if not resume:
            raise ConfigError(f"out={run} holds a run already: --resume goes on with it")
    elif run.exists() and any(path.name not in _BEFORE_CONFIG for path in run.iterdir()):
        raise ConfigError(f"out={run} exists, is not empty, and holds no run")
    above = next((folder for folder in (run, *run.absolute().parents) if folder.exists()), run)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"out={run} cannot be written: {above} is read-only or not a directory")
    return (run / CONFIG_FILE).is_file()


def make_tables(
    spec: RunSpec,
    config: ModelConfig,
    corpus: Corpus | StreamedCorpus,
    tokenizer: Tokenizer,
    model: LanguageModel,
    world_size: int,
) -> dict[str, Any]:
    """config.toml: what decides the outcome, and on what it was made."""
    return {
        "model": {"name": spec.model, **configs.to_dict(config)},
        "train": configs.to_dict(spec.train),
        "data": {
            "data": spec.data,
            "corpus_sha256": corpus.sha256,
            "tokenizer": spec.tokenizer,
            "tokenizer_sha256": tokenizer.sha256,
        },
        "machine": {
            "precision": resolve_precision(spec.train.precision, model, spec.train.batch_size),
            "world_size": world_size,
            "device": model.device.type,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "lmzoo": __version__,
        },
    }


def read_tables(run: Path) -> dict[str, Any]:
    """The tables of a run's config.toml. Raises `CheckpointError` when it is not one of ours."""
    path = run / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{run}: is not a run: it has no {CONFIG_FILE}")
    for file in (path, run / TOKENIZER_FILE):  # a link could lead out of the run, and a pipe would never end
        if atomic.regular_size(file) > _MAX_BYTES:
            raise CheckpointError(f"{file}: is larger than {_MAX_BYTES} bytes")
    tables = configs.load_toml(path)
    for name in ("model", "train", "data", "machine"):
        if not isinstance(tables.get(name), dict):
            raise CheckpointError(f"{path}: has no table [{name}]")
    precision = tables["machine"].get("precision")
    if precision not in ("float32", "bf16"):
        raise CheckpointError(f"{path}: machine.precision={precision!r} must be 'float32' or 'bf16'")
    return tables


def require_same(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A resumed run must be the same run; where its text lies and on what machine it goes on does not matter."""
    for table in ("model", "train", "data"):
        old, new = before[table], now[table]
        if table == "train":  # what an earlier version did not know, it did as the default says
            old = {**configs.to_dict(TrainConfig()), **old}
        for name in [*new, *(name for name in old if name not in new)]:
            if name != "data" and old.get(name) != new.get(name):
                error = DataError if table == "data" else ConfigError
                raise error(
                    f"{table}.{name}={new.get(name)!r}, but the run in {run} was made with {old.get(name)!r}: "
                    f"resume it as it was, or train in another directory"
                )


def require_world_size(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """As many processes add up in the same order; another number must be asked for. Raises `ConfigError`."""
    old, new = before["machine"].get("world_size", 1), now["machine"]["world_size"]
    if old != new:
        raise ConfigError(
            f"world_size={new}, but the run was made with {old}: resume it with {old} processes, or add --reshard to "
            f"go on with {new}, which changes the last digits"
        )


def machine_note(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What keeps a resumed run from going on to the bit: another torch, device, or number of threads."""
    old, new = before["machine"], now["machine"]
    changed = [name for name in ("torch", "device", "threads") if old.get(name) != new[name]]
    if not changed:
        return None
    what = ", ".join(f"{name} is {new[name]} and was {old.get(name)}" for name in changed)
    return f"the run goes on on another machine ({what}): its numbers may differ in the last bits"


def create(run: Path, tables: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Write the tokenizer and then the config, which makes a directory a run."""
    if (run / CONFIG_FILE).exists():
        raise ConfigError(f"out={run} holds a run already, that another process has just made")
    atomic.write_file(run / TOKENIZER_FILE, tokenizer.to_json())
    write_tables(run, tables)


def write_tables(run: Path, tables: Mapping[str, Any]) -> None:
    """Write config.toml. Raises `CheckpointError` when the disk refuses."""
    atomic.write_file(run / CONFIG_FILE, configs.dump_toml(tables))
