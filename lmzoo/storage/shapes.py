"""Compares the tensors of two models by name and shape: whether one can take over the weights of the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from lmzoo import configs, registry
from lmzoo.errors import ConfigError
from lmzoo.storage.models import tensors_of

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel, ModelConfig


def changed_config(model: LanguageModel, changes: Mapping[str, Any]) -> ModelConfig:
    """Returns the config of a trained model with other settings.

    Raises `ConfigError` for one that the model lacks, or that changes the name or the shape of a weight.
    """
    cls, given = type(model), configs.to_dict(model.config)
    for key, value in changes.items():
        config = configs.build(cls.config_class, {**given, key: value})
        if what := difference(model, registry.blank_model(cls, config, device="meta")):
            raise ConfigError(f"{key}={value!r} cannot be set in a trained model: {what}")
    return configs.build(cls.config_class, {**given, **changes})


def difference(given: nn.Module, wanted: nn.Module) -> str:
    """Returns the first difference in names or shapes of parameters and saved buffers, in words; "" if none."""
    have, need = tensors_of(given), tensors_of(wanted)
    for name in [*need, *have]:
        if name not in have:
            return f"it adds {name}"
        if name not in need:
            return f"it removes {name}"
        if have[name].shape != need[name].shape:
            return f"it changes the shape of {name} from {tuple(have[name].shape)} to {tuple(need[name].shape)}"
    return ""
