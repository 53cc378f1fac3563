"""Writes a model as a Hugging Face directory, which transformers and lmzoo load with the same logits.

The files are written to a folder beside the new one and loaded again by the code that imports them. Only if all
settings, all weights and the logits are those of the model, the folder gets its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmzoo import arguments, configs
from lmzoo.errors import CheckpointError, DataError, InputError
from lmzoo.hf.card import CARD_FILE, model_card
from lmzoo.hf.fitting import TRAINING, Fit, differences, fitting
from lmzoo.hf.load import CONFIG_FILE, load_checkpoint
from lmzoo.hf.own import MODEL_TYPE, PREFIX, own_config
from lmzoo.hf.shards import INDEX, ONE_FILE
from lmzoo.hf.tokenizer import is_kept, tokenizer_files
from lmzoo.hf.writer import unconvert
from lmzoo.model import LanguageModel
from lmzoo.storage import atomic, fingerprint, models, safetensors

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer
    from lmzoo.runs.facts import RunFacts

SHARD_BYTES = 5 * 10**9  # of the tensors in one file, as in transformers
_ALIGN = 64  # bytes, as of tensors in memory
Progress = Callable[[str, int, int], None]  # what is done, bytes done, bytes in total


@dataclass(frozen=True)
class Export:
    """A directory that was written. `left_out` are settings that config.json cannot hold, and that act in training."""

    path: Path
    model_type: str
    family: str
    parameters: int
    dtype: str
    files: tuple[str, ...]
    left_out: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON holds them."""
        return {**vars(self), "path": str(self.path), "files": [*self.files], "left_out": {**self.left_out}}


def export(
    model: LanguageModel,
    path: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    model_type: str | None = None,
    facts: RunFacts | None = None,
    license: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Export:
    """Writes a model to the new or empty directory `path` in the form of Hugging Face, and returns what was written.

    The model type is the first of transformers that has all settings of the model, or the one that is given. A family
    that transformers does not know is written in lmzoo's own form ("lmzoo"). Weights keep their dtype; those above
    `shard_bytes` are divided into several files. `facts` of the run and the `license` are for the model card.

    Raises an `LmzooError` of one line, with nothing written: `ConfigError` names settings for which transformers has no
    model type, `CheckpointError` a model that its config does not describe, for example with a part replaced.
    """
    path = arguments.path("path", path)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path}: exists and is no empty directory: it is left as it is")
    if not isinstance(model, LanguageModel):
        raise InputError(f"model={type(model).__name__} must be a LanguageModel")
    for name, value in (("model_type", model_type), ("license", license)):
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name}={value!r} must be a text")
    shard_bytes = arguments.count("shard_bytes", shard_bytes, least=1)
    texts = _tokenizer_texts(model, tokenizer)

    def problem(kind: str) -> str | None:
        kept = tokenizer is None or is_kept(texts, kind)
        return None if kept else f"transformers replaces parts of the tokenizer beside the model type {kind}"

    fit = fitting(model, model_type, problem)
    logits = fingerprint.fingerprint(model)
    with torch.no_grad():
        config, tensors = _content(model, fit, logits)
        if tokenizer is not None and (stops := tokenizer.for_model(model.config.vocab_size).stop_tokens):
            config["eos_token_id"] = stops[0] if len(stops) == 1 else [*stops]
        files = _weight_files(tensors, shard_bytes)
        kind = fit.architecture.model_type if fit else MODEL_TYPE
        left_out = fit.left_out if fit else {}
        card = model_card(
            model, kind, facts=facts, license=license, left_out=left_out, with_tokenizer=tokenizer is not None
        )
        texts |= {CONFIG_FILE: json.dumps(config, indent=2), CARD_FILE: card}
        if len(files) > 1:
            texts[INDEX] = _index(files)
        with atomic.new_folder(path, manifest=False) as folder:
            _write(folder, files, progress or _quiet)
            for name, text in texts.items():
                atomic.write_new(folder / name, [text.encode()])
            _check(folder, path, model, logits, progress or _quiet)
    return Export(
        path=path,
        model_type=kind,
        family=model.family,
        parameters=model.num_params(),
        dtype=config["dtype"],
        files=tuple(sorted([*files, *texts])),
        left_out=left_out,
    )


def _tokenizer_texts(model: LanguageModel, tokenizer: Tokenizer | None) -> dict[str, str]:
    """Returns the content of the files of the tokenizer. Raises `InputError` for one that does not fit."""
    if tokenizer is None:
        return {}
    size = model.config.vocab_size
    try:
        return tokenizer_files(tokenizer.for_model(size), model.config.context_length)
    except (AttributeError, DataError):
        raise InputError(f"{tokenizer!r} is not a tokenizer for a model with vocab_size={size}") from None


def _content(model: LanguageModel, fit: Fit | None, logits: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the content of config.json, and the tensors by their names in the checkpoint."""
    ours = models.tensors_of(model)
    if fit is None:
        facts = {} if logits is None else {"fingerprint": logits}
        return own_config(model, facts), {f"{PREFIX}{name}": tensor for name, tensor in ours.items()}
    found = unconvert(ours, fit.architecture.weights_for(fit.config), configs.to_dict(model.config))
    config = {**fit.config, "dtype": str(model.dtype).removeprefix("torch.")}
    return config, {fit.architecture.saved_name(name): tensor for name, tensor in found.items()}


def _weight_files(tensors: Mapping[str, Tensor], limit: int) -> dict[str, dict[str, Tensor]]:
    """Divides tensors into files of at most `limit` bytes, or of one tensor that is larger."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    if len(groups) == 1:
        return {ONE_FILE: groups[0]}
    return {f"model-{number:05d}-of-{len(groups):05d}.safetensors": group for number, group in enumerate(groups, 1)}


def _index(files: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Returns the content of the index of several files."""
    total = sum(tensor.nbytes for group in files.values() for tensor in group.values())
    places = {name: file for file, group in files.items() for name in group}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}, indent=2)


def _write(folder: Path, files: Mapping[str, Mapping[str, Tensor]], progress: Progress) -> None:
    """Writes the files of the weights. Raises `OSError`."""
    done, total = 0, sum(tensor.nbytes for group in files.values() for tensor in group.values())

    def counted(chunks: Iterable[atomic.Chunk]) -> Iterator[atomic.Chunk]:
        nonlocal done
        for chunk in chunks:
            yield chunk
            done = min(total, done + len(chunk))
            progress("writing", done, total)

    for name, group in files.items():
        atomic.write_new(folder / name, counted(safetensors.chunks(group, {"format": "pt"}, align=_ALIGN)))


def _check(folder: Path, path: Path, model: LanguageModel, logits: Any, progress: Progress) -> None:
    """Loads the files in `folder`, which is to become `path`.

    Raises `CheckpointError` unless they give the settings, the weights and the logits of the model.
    """
    try:
        loaded = load_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(path))) from None
    lost = {*differences(model.config, loaded.config)} - {*TRAINING} if loaded.family == model.family else {"family"}
    if lost:
        raise CheckpointError(f"{path}: the config.json that was written gives another {sorted(lost)[0]}")
    wanted, found = models.tensors_of(model), models.tensors_of(loaded)
    total, done = sum(tensor.nbytes for tensor in wanted.values()), 0
    for name, tensor in wanted.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite: such a model is not exported")
        if found[name].dtype != tensor.dtype or not torch.equal(found[name], tensor.cpu()):
            raise CheckpointError(f"{path}: {name} differs from that of the model after it was written")
        done += tensor.nbytes
        progress("checking", done, total)
    if logits is not None:
        fingerprint.check(loaded, logits, path / CONFIG_FILE)


def _quiet(what: str, done: int, total: int) -> None:
    """Default for `progress`: shows nothing."""
