"""The checkpoint format: a folder with `model.safetensors`, `config.json` and a manifest; never executable content.

Files may come from untrusted sources. So, before memory is allocated, the manifest is checked, the name of the model
must be registered, and the names, shapes and types of all tensors must match a model built on the meta device.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lmzoo import arguments, configs, registry
from lmzoo.errors import CheckpointError, ConfigError, DataError, InputError, UnknownModelError
from lmzoo.storage import atomic, checkpoints, fingerprint, reading
from lmzoo.storage.safetensors import TensorFile, open_tensors, write_tensors

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer
    from lmzoo.model import LanguageModel, ModelConfig

MODEL_FILE = "model.safetensors"
MODEL_CONFIG_FILE = "config.json"
MODEL_TYPE = "lmzoo"  # by which transformers finds the class of the model, after `lmzoo.hf.register()`
_HIDDEN_BYTES = 1 << 30  # limit for buffers that are not in the file: masks, rotary tables


def save_model(model: LanguageModel, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Write `model` to `folder`, replacing a model saved there before, with its fingerprint and its tokenizer.

    Raises `CheckpointError`, or `InputError` for a tokenizer that does not fit.
    """
    path = arguments.path("path", folder)
    if tokenizer is not None:
        size = getattr(tokenizer, "vocab_size", None)
        found = f"{tokenizer!r} is not a tokenizer" if size is None else f"the tokenizer has vocab_size={size}"
        try:
            tokenizer = tokenizer.for_model(model.config.vocab_size)
        except (AttributeError, DataError):
            raise InputError(f"{found}: the model needs one with vocab_size={model.config.vocab_size}") from None
    if os.path.lexists(path) and not (
        os.path.isdir(path) and (not any(path.iterdir()) or (path / reading.MANIFEST).is_file())
    ):
        raise CheckpointError(f"{path}: exists and is not a saved model; it is left as it is")
    logits = fingerprint.fingerprint(model)
    with atomic.new_folder(path) as new:
        write_model(model, new, {} if logits is None else {"fingerprint": logits})
        if tokenizer is not None:
            tokenizer.save(new)


def write_model(model: LanguageModel, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write the two files of the model into `folder`, which the caller commits; `facts` are added to config.json.

    Checkpoints that are written during training have no fingerprint: computing it would slow down every save.
    """
    content = {
        "model_type": MODEL_TYPE,
        "dtype": str(model.dtype).removeprefix("torch."),
        **describe(model, facts),
    }
    write_tensors(tensors_of(model), folder / MODEL_FILE)
    atomic.write_new(folder / MODEL_CONFIG_FILE, [json.dumps(content, indent=1).encode()])


def describe(model: LanguageModel, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the content of config.json: the family and all settings of a model, and more `facts`.

    Raises `CheckpointError` for a model without a name.
    """
    if not model.family:
        raise CheckpointError(f"{type(model).__name__} has no name to be loaded by: add @lmzoo.register_model('NAME')")
    return {"lmzoo": 1, "model": model.family, "config": configs.to_dict(model.config), **(facts or {})}


def load_model(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> LanguageModel:
    """Load the model of a run (its newest valid checkpoint), of one checkpoint, or of a checkpoint of Hugging Face
    transformers, in eval mode.

    `dtype` and `device` are by default those in which the weights were saved, and the CPU. Raises `CheckpointError`
    (one line, naming the file and the rule) when there is none, or it is damaged, tampered with, or its model is not
    registered. Warns when the newest checkpoint is damaged and an older one is loaded.
    """
    from lmzoo.hf.load import is_checkpoint, load_checkpoint  # imports this module

    path = arguments.path("path", path)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype={dtype!r} must be a floating-point type of torch, such as torch.bfloat16")
    if device is not None:
        device = registry.checked_device(device)
    if os.path.isfile(path):
        raise CheckpointError(f"{path}: is a file: a run or a checkpoint is a folder (pickled models are never loaded)")
    if not os.path.lexists(path) and str(path) in registry.list_models():
        raise CheckpointError(f"{path}: there is no such run or checkpoint; lmzoo.create_model({str(path)!r}) makes it")
    if is_checkpoint(path):
        return load_checkpoint(path, dtype=dtype, device=device)
    return moved(read_model(checkpoints.find(path)), dtype, device)


def moved(model: LanguageModel, dtype: torch.dtype | None, device: torch.device | str | None) -> LanguageModel:
    """Returns the model on another device and with weights of another dtype, unless these are None."""
    model = model.to(device)
    if dtype is not None:
        from lmzoo.inference.weights import cast_weights

        cast_weights(model, dtype)
    return model


def is_saved(path: Path) -> bool:
    """True for a folder that `load_model` reads and that is no run: one of `save_model`, or one of transformers."""
    from lmzoo.hf.load import is_checkpoint

    return os.path.isfile(path / reading.MANIFEST) or is_checkpoint(path)


def read_model(folder: reading.Folder) -> LanguageModel:
    """Load the model of a checked folder, in eval mode, and compare it with its fingerprint, if the folder has one.

    Raises `CheckpointError`.
    """
    where = folder.path / MODEL_CONFIG_FILE
    content = folder.json(MODEL_CONFIG_FILE)
    with _checked_file(folder, content) as (file, cls, config):
        # Plain torch modules draw weights when they are built: the caller's random state must not advance.
        with torch.random.fork_rng(devices=[]):
            model = registry.blank_model(cls, config)
        for name, tensor in tensors_of(model).items():
            saved = file.tensor(name)
            if saved.dtype != tensor.dtype:
                tensor.data = tensor.data.to(saved.dtype)
            tensor.data.copy_(saved)  # copies into aligned memory, where kernels sum in the same order as before saving
    model.eval()
    if "fingerprint" in content:
        fingerprint.check(model, content["fingerprint"], where)
    return model


def check_saved(path: Path) -> None:
    """Checks a folder that `save_model` or a run has written, without memory for a model. Raises `CheckpointError`."""
    folder = reading.open_folder(path)
    with _checked_file(folder, folder.json(MODEL_CONFIG_FILE)):
        pass


@contextmanager
def _checked_file(
    folder: reading.Folder, content: dict[str, Any]
) -> Iterator[tuple[TensorFile, type[LanguageModel], ModelConfig]]:
    """Yields the tensors of a folder, compared with a model without memory, and the class and config of the model."""
    where = folder.path / MODEL_CONFIG_FILE
    cls, config = class_and_config(where, content)
    with open_tensors(folder.file(MODEL_FILE)) as file:
        _check_against(file, cls, config, where, folder.sizes[MODEL_FILE])
        yield file, cls, config


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns all parameters (tied ones once) and persistent buffers by name."""
    kept = model.state_dict().keys()
    return {
        **dict(model.named_parameters()),
        **{name: buffer for name, buffer in model.named_buffers() if name in kept},
    }


def class_and_config(where: Path, content: Mapping[str, Any]) -> tuple[type[LanguageModel], ModelConfig]:
    """Returns the class and the settings that the content of a config.json, `where`, describes.

    Raises `CheckpointError` for a family that is not registered, and for a setting that breaks a rule.
    """
    family, settings = content.get("model"), content.get("config")
    if content.get("lmzoo") != 1 or not isinstance(family, str) or not isinstance(settings, dict):
        raise CheckpointError(f"{where}: must hold lmzoo (1), model and config")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", family):
        raise CheckpointError(f"{where}: model={family!r} is not the name of a family")
    try:
        cls = registry.model_class(family)
    except UnknownModelError as error:
        raise CheckpointError(f"{where}: {error}") from error
    try:
        return cls, configs.build(cls.config_class, settings, where=str(where))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _check_against(file: TensorFile, cls: type[LanguageModel], config: ModelConfig, where: Path, size: int) -> None:
    """Compare the header of the file with a model on the meta device; stop early if the file cannot match."""
    file.check(tensors_of(on_meta(cls, config, len(file.shapes), size, where)))


def on_meta(cls: type[LanguageModel], config: ModelConfig, count: int, size: int, where: Path) -> LanguageModel:
    """Build a model without memory, for a checkpoint of `count` tensors and `size` bytes.

    Raises `CheckpointError` if no model can be built, or if it has far more tensors or memory than the checkpoint.
    """
    try:
        with _at_most(4 * count + 16, where):
            model = registry.blank_model(cls, config, device="meta")
    except CheckpointError:
        raise
    except Exception as error:  # sizes too large for a tensor raise many types of errors
        first_line = str(error).partition("\n")[0]
        raise CheckpointError(f"{where}: no model can be built from it: {first_line}") from error
    saved = tensors_of(model)
    hidden = sum(buffer.nbytes for name, buffer in model.named_buffers() if name not in saved)
    if hidden > max(size, _HIDDEN_BYTES):
        raise CheckpointError(f"{where}: asks for {hidden} bytes beside the {size} of {MODEL_FILE}")
    return model


@contextmanager
def _at_most(limit: int, where: Path) -> Iterator[None]:
    """Stop a constructor that makes far more parameters than the file holds (for example a billion layers)."""
    made = 0

    def count(_module: nn.Module, _name: str, _parameter: Any) -> None:
        nonlocal made
        made += 1
        if made > limit:
            raise CheckpointError(f"{where}: asks for more tensors than {MODEL_FILE} holds")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
