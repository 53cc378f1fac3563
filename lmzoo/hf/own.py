"""lmzoo's own form of a Hugging Face directory, for families that transformers does not know.

`config.json` has the model type "lmzoo" and, under the key "lmzoo", the content of the config.json of a model directory
of lmzoo: the family and all its settings. The tensors are the parameters and persistent buffers of the model with the
prefix "model.", because the class that transformers loads holds the model in an attribute of that name. Tied weights
are one parameter in lmzoo, so they are saved once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Architecture, Config
from lmzoo.storage import models

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel, ModelConfig

MODEL_TYPE = models.MODEL_TYPE
CLASS = "LmzooForCausalLM"
PREFIX = "model."


def own_config(model: LanguageModel, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the config.json of a model; `facts` are added to the content under the key "lmzoo".

    A text of lmzoo has no special tokens, so their ids are null. Raises `CheckpointError` for a model without a name.
    """
    return {
        "model_type": MODEL_TYPE,
        "architectures": [CLASS],
        "lmzoo": models.describe(model, facts),
        "vocab_size": model.config.vocab_size,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def is_own(config: Mapping[str, Any]) -> bool:
    """True for the content of a config.json in lmzoo's own form, not for that of a model directory of lmzoo."""
    return config.get("model_type") == MODEL_TYPE and config.get("lmzoo") != 1


def own_model(config: Config, where: Path) -> tuple[type[LanguageModel], ModelConfig]:
    """Returns the class and the settings of the model of a config.json in lmzoo's own form, from the file `where`.

    Raises `CheckpointError` naming the key and the rule.
    """
    classes = config.value("architectures", list[object](), list)
    if classes and CLASS not in classes:
        raise CheckpointError(f"{where}: architectures must have {CLASS}")
    cls, settings = models.class_and_config(where, config.table("lmzoo"))
    if config.value("vocab_size", settings.vocab_size) != settings.vocab_size:
        raise CheckpointError(f"{where}: vocab_size must be that of lmzoo, {settings.vocab_size}")
    return cls, settings


def own_architecture(names: Mapping[str, Any]) -> Architecture:
    """Returns the names of the tensors in lmzoo's own form, as an architecture whose settings are not read from keys.

    `names` has the names of the tensors of the model.
    """
    return Architecture(
        model_type=MODEL_TYPE,
        classes=(CLASS,),
        family="",
        weights={name: f"{PREFIX}{name}" for name in names},
        keys={},
        prefix=PREFIX,
    )
