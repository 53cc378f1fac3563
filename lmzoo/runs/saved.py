"""Loads and evaluates everything that is saved: a run, a checkpoint of it, or a folder written by `model.save`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from lmzoo import arguments, files
from lmzoo.data.store import Documents, TokenSplit
from lmzoo.data.tokenizers import TOKENIZER_FILE, Tokenizer, load_tokenizer
from lmzoo.errors import CheckpointError, DataError
from lmzoo.model import LanguageModel
from lmzoo.runs.directory import CONFIG_FILE, keeps_near_duplicates, own_data, read_tables, text_hashes
from lmzoo.runs.inputs import load_data, validation_split
from lmzoo.runs.validation import VALIDATION_FILE, read_validation
from lmzoo.storage import checkpoints, models
from lmzoo.train.carried import ContextUse, evaluate_text, require_carried, require_context
from lmzoo.train.evaluate import EvalResult, PositionLoss, evaluate_positions


class Run(NamedTuple):
    """A loaded run: its model in eval mode, its tokenizer, and the tables of its config.toml (none: a saved model)."""

    model: LanguageModel
    tokenizer: Tokenizer
    tables: dict[str, Any]


def is_run(path: str | Path) -> bool:
    """Return True for a run directory."""
    return os.path.isfile(Path(path) / CONFIG_FILE)


def load_run(path: str | Path, tokenizer: str | Path | None = None) -> Run:
    """Load model, tokenizer and settings of a run (its newest valid checkpoint), a checkpoint, or a saved model.

    `tokenizer` is the path of a tokenizer, for a saved model without one. Raises `CheckpointError` or `DataError`.
    Warns if a damaged newest checkpoint was skipped.
    """
    place = arguments.path("path", path)
    run = run_of(place)
    if _is_saved_model(place, run):
        return Run(*_load_saved(place, tokenizer), {})
    tables = read_tables(run)
    model = models.load_model(place if place.name != checkpoints.FOLDER else run)
    found = _fitting(run, model, load_tokenizer(run))
    if found.sha256 != tables["data"].get("tokenizer_sha256"):
        raise CheckpointError(
            f"{run / TOKENIZER_FILE}: its SHA-256 differs from the one in {CONFIG_FILE} (damaged or changed)"
        )
    if tokenizer is not None and load_tokenizer(tokenizer).sha256 != found.sha256:
        raise DataError(f"tokenizer={tokenizer} differs from the tokenizer of the run {path}: leave it out")
    return Run(model, found, tables)


def load_model_and_tokenizer(
    path: str | Path, tokenizer: str | Path | None = None
) -> tuple[LanguageModel, Tokenizer | None]:
    """Load what `load_run` loads, and also a saved model without a tokenizer, with None in its place."""
    place = arguments.path("path", path)
    bare = tokenizer is None and not is_run(run_of(place)) and not os.path.lexists(place / TOKENIZER_FILE)
    return (models.load_model(place), None) if bare else load_run(place, tokenizer)[:2]


def _is_saved_model(place: Path, run: Path) -> bool:
    """True for a folder of `model.save` or of transformers, or a checkpoint that was copied out of its run."""
    return not os.path.lexists(run / CONFIG_FILE) and models.is_saved(place)


def _load_saved(folder: Path, tokenizer: str | Path | None) -> tuple[LanguageModel, Tokenizer]:
    """Load a saved model, with its own tokenizer unless another is given."""
    if tokenizer is None and not os.path.lexists(folder / TOKENIZER_FILE):
        raise DataError(
            f"{folder}: is a saved model without a tokenizer: name one with --tokenizer PATH, or save it with "
            "model.save(path, tokenizer=...)"
        )
    model = models.load_model(folder)
    return model, _fitting(folder, model, load_tokenizer(folder if tokenizer is None else tokenizer))


def _fitting(path: Path, model: LanguageModel, tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer for the vocabulary of the model. Raises `CheckpointError` if it does not fit."""
    try:
        return tokenizer.for_model(model.config.vocab_size)
    except DataError:
        raise CheckpointError(
            f"{path}: the model has vocab_size={model.config.vocab_size}, its tokenizer {tokenizer.vocab_size}"
        ) from None


def evaluate_run(
    path: str | Path,
    data: str | None = None,
    tokenizer: str | Path | None = None,
    documents: Documents | None = None,
    stride: int | None = None,
    context: ContextUse = "reset",
) -> EvalResult:
    """Evaluate anything that `load_run` loads, on the whole validation split of its own text, or of the text `data`.

    The documents are isolated or joined as in the training, unless `documents` says otherwise; those of a saved model
    are joined. `stride` as in `evaluate`; `context` as in `lmzoo.train.carried`. A run keeps its own
    validation split as it was trained with, unless that is too large: else its text is read again. Raises `DataError`
    if that text has changed since the training, or for a saved model without `data`; `ConfigError` for a stride above
    the context length, or a model that cannot carry its context.
    """
    require_context(context, stride)
    model, split, precision = _model_and_split(path, data, tokenizer, documents)
    if context == "carried":
        require_carried(str(path), model, split, model.device)
    return evaluate_text(model, split, context=context, stride=stride, precision=precision)


def evaluate_run_positions(
    path: str | Path,
    data: str | None = None,
    length: int | None = None,
    tokenizer: str | Path | None = None,
    documents: Documents | None = None,
) -> list[PositionLoss]:
    """Evaluate a run by position, up to `length`, which may exceed the context length of training."""
    model, split, _ = _model_and_split(path, data, tokenizer, documents)
    return evaluate_positions(model, split, length=length)


def _model_and_split(
    path: str | Path, data: str | None, tokenizer: str | Path | None, documents: Documents | None
) -> tuple[LanguageModel, TokenSplit, str]:
    """Load a model, a validation split, and the precision in which the model was trained."""
    model, found, tables = load_run(path, tokenizer)
    precision = tables["machine"]["precision"] if tables else "float32"
    trained_with = _documents(tables)
    documents = documents or trained_with
    if data is not None:
        return model, validation_split(load_data(data), found, documents), precision
    if not tables:
        raise DataError(f"{path}: is a saved model, which has no text of its own: name one with --data")
    if documents == trained_with and (kept := read_validation(run_of(path), model.config.vocab_size)) is not None:
        return model, kept, precision
    corpus = load_data(own_data(run_of(path)), keep_near_duplicates=keeps_near_duplicates(tables))
    now, then = text_hashes(corpus), tables["data"]
    if now["corpus_sha256"] != then.get("corpus_sha256"):
        raise DataError(
            f"{corpus.name}: its SHA-256 is {corpus.sha256}, but the run was trained on a text with "
            f"{then.get('corpus_sha256')}"
        )
    if now.get("validation_sha256") != then.get("validation_sha256"):
        raise DataError(
            f"{corpus.name}: the text is that of the run, but its files are divided in another way: its validation "
            f"split has validation_sha256={now.get('validation_sha256')}, that of the run {then['validation_sha256']}"
        )
    return model, validation_split(corpus, found, documents), precision


def _documents(tables: dict[str, Any]) -> Documents:
    """Return how a run was trained; "joined" for a saved model, and for a run that is older than the setting."""
    return "isolated" if tables.get("train", {}).get("documents") == "isolated" else "joined"


def text_to_read(path: str | Path, documents: Documents | None = None) -> str | None:
    """Return the text that evaluating a run reads again; None if the run keeps its validation split, or is no run.

    Raises the errors of `own_data`.
    """
    run = run_of(path)
    if not is_run(run):
        return None
    kept = os.path.lexists(run / VALIDATION_FILE) and documents in (None, _documents(read_tables(run)))
    return None if kept else own_data(run)


def run_of(path: str | Path) -> Path:
    """Return the directory of a run, or of the run that a checkpoint belongs to."""
    place = files.real_path(path)
    if place.name == checkpoints.FOLDER:
        return place.parent
    return place.parent.parent if place.parent.name == checkpoints.FOLDER else place
