"""Loads a checkpoint of Hugging Face transformers as a model of lmzoo with the same logits.

Everything is checked before memory is allocated: the keys of config.json, the names, shapes and dtypes of all tensors,
against a model on the meta device. No code of the checkpoint is run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmzoo import configs, registry
from lmzoo.errors import CheckpointError, ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.architectures import architecture_of
from lmzoo.hf.keys import WITHOUT_EFFECT
from lmzoo.hf.own import is_own, own_architecture, own_model
from lmzoo.hf.shards import Shards, open_files
from lmzoo.hf.weights import Reader, Weights, check_used, not_tied, tied_heads
from lmzoo.hf.wrappers import unwrapped
from lmzoo.storage import fingerprint, models, reading

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel, ModelConfig

CONFIG_FILE = "config.json"
_MAX_CONFIG = 2 << 20  # bytes
_CHUNK = 16 << 20  # bytes of a tensor that are copied before their pages are given back


def _read(path: Path) -> dict[str, Any]:
    """Reads a config.json. Lists in lists of 16 MB, which an index may have, would take seconds."""
    return reading.read_json(path, links=True, limit=_MAX_CONFIG)


def is_checkpoint(folder: str | Path) -> bool:
    """True for a folder with a config.json in the form of Hugging Face, of transformers or of lmzoo itself."""
    if os.path.lexists(Path(folder) / reading.MANIFEST) or not os.path.isfile(Path(folder) / CONFIG_FILE):
        return False
    try:
        config = _read(Path(folder) / CONFIG_FILE)
        return is_own(config) or "lmzoo" not in config
    except CheckpointError:
        return True


def load_checkpoint(
    folder: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> LanguageModel:
    """Loads the checkpoint in `folder`, in eval mode, to a dtype and a device.

    The default dtype is the one in which the token embedding was saved. Weights that need no change stay mapped, so the
    files must not be changed while the model is in use. Raises `CheckpointError`, one line, naming the
    file, the key or the tensor, and the rule.
    """
    folder = Path(folder)
    where = folder / CONFIG_FILE
    config = Config(_read(where))
    if is_own(config):
        return models.moved(_load_own(folder, config), dtype, device)
    try:
        config, known = unwrapped(config)
        architecture = architecture_of(config, known)
        settings = architecture.settings(config, WITHOUT_EFFECT)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    weights = architecture.weights_for(config)
    n_layers = settings["n_layers"]
    tensors = Shards(open_files(folder), architecture, weights, n_layers)
    if type(n_layers) is int and n_layers > len(tensors):
        raise CheckpointError(f"{where}: asks for {n_layers} layers, and the checkpoint holds {len(tensors)} tensors")
    cls = registry.model_class(architecture.family)
    try:
        built = configs.build(cls.config_class, settings, where=str(where))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    try:
        _check(tensors, weights, cls, built, where)
        tokens = Reader(tensors, settings).ours(weights, "tokens.weight")
        return _filled(tensors, weights, cls, built, dtype or tokens.dtype, device)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def _load_own(folder: Path, config: Config) -> LanguageModel:
    """Loads a model in lmzoo's own form, each tensor in the dtype in which it was saved."""
    where = folder / CONFIG_FILE
    tensors, weights, cls, built = _opened_own(folder, config)
    try:
        model = _filled(tensors, weights, cls, built, None, None)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    saved = config.table("lmzoo").get("fingerprint")
    if saved is not None:
        fingerprint.check(model, saved, where)
    return model


def check_own(folder: Path) -> None:
    """Checks a directory in lmzoo's own form, without memory for a model. Raises `CheckpointError`, one line."""
    _opened_own(folder, Config(_read(folder / CONFIG_FILE)))


def _opened_own(folder: Path, config: Config) -> tuple[Shards, Weights, type[LanguageModel], ModelConfig]:
    """Returns the tensors, which were checked, their names, and the class and the config of the model."""
    where = folder / CONFIG_FILE
    cls, built = own_model(config, where)
    opened = open_files(folder)
    count, size = sum(map(len, opened)), sum(file.bytes for file in opened)
    architecture = own_architecture(models.tensors_of(models.on_meta(cls, built, count, size, where)))
    weights = architecture.weights_for(config)
    try:
        tensors = Shards(opened, architecture, weights)
        _check(tensors, weights, cls, built, where)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return tensors, weights, cls, built


def _check(tensors: Shards, weights: Weights, cls: type[LanguageModel], config: ModelConfig, where: Path) -> None:
    """Converts tensors without memory, and compares them with a model without memory."""
    size = sum(file.bytes for file in tensors.files)
    expected = models.tensors_of(models.on_meta(cls, config, len(tensors), size, where))
    read = Reader(tensors.on_meta(), configs.to_dict(config))
    for name, tensor in expected.items():
        found = read.ours(weights, name)
        if found.shape != tensor.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(found.shape)} in the checkpoint, its config asks for {tuple(tensor.shape)}"
            )
        if found.is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{name} is of type {found.dtype}, its config asks for {tensor.dtype}")
    check_used(tensors, {*read.used, *(head.name for head in tied_heads(weights, expected))})


def _filled(
    tensors: Shards,
    weights: Weights,
    cls: type[LanguageModel],
    config: ModelConfig,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> LanguageModel:
    """Returns the model with the checked weights of the checkpoint; without `dtype`, each as it was saved."""
    read = Reader(tensors, configs.to_dict(config))
    with torch.random.fork_rng(devices=[]):  # plain torch modules draw weights when they are built
        model = registry.blank_model(cls, config)
    kept = kept_wide(model)
    ours = models.tensors_of(model)
    for name, tensor in ours.items():
        source = read.ours(weights, name)
        wanted = (dtype or source.dtype) if tensor.is_floating_point() else tensor.dtype
        if name in kept:
            wanted = torch.promote_types(wanted, torch.float32)
        tensor.data = _copied(source, wanted, device, tensors)
    for head in tied_heads(weights, ours):
        if head.name in tensors and not torch.equal(tensors[head.name], tensors[head.tokens]):
            raise not_tied(head)
    tensors.release()
    return (model if device is None else model.to(device)).eval()


def kept_wide(model: LanguageModel) -> set[str]:
    """Returns the names of parameters that lose too much precision in 16 bits."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in getattr(module, "keep_float32", ())
    }


def _copied(source: Tensor, dtype: torch.dtype, device: torch.device | str | None, tensors: Shards) -> Tensor:
    """Copies a tensor to a dtype and a device, in chunks of rows, giving back the pages of each.

    A tensor that needs no change, or is a transposed matrix, stays mapped: its pages are read when the model first
    runs.
    """
    here = device is None or torch.device(device).type == "cpu"
    dense = source.is_contiguous() or (source.ndim == 2 and source.t().is_contiguous())
    if here and dense and source.dtype == dtype:
        return source
    if source.ndim == 0 or not source.is_contiguous():
        copied = source.to(device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format)
    else:
        copied = torch.empty(source.shape, dtype=dtype, device=device)
        rows = max(1, _CHUNK // max(1, source[:1].nbytes))
        for start in range(0, len(source), rows):
            copied[start : start + rows].copy_(source[start : start + rows])
            tensors.release()
    tensors.release()
    return copied
