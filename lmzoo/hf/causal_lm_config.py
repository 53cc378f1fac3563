"""The config of a model of lmzoo in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from lmzoo.errors import CheckpointError
from lmzoo.hf.load import CONFIG_FILE
from lmzoo.hf.own import MODEL_TYPE
from lmzoo.storage import models

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel, ModelConfig


class LmzooConfig(PreTrainedConfig):
    """The config of `LmzooForCausalLM`. `lmzoo` is the content of config.json in a model directory of lmzoo."""

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (transformers declares it so)

    def __init__(
        self,
        lmzoo: Any = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        **others: Any,
    ) -> None:
        if not isinstance(lmzoo, dict) and lmzoo is not None:
            # A model directory of lmzoo: the same content, not below a key.
            lmzoo = {"lmzoo": lmzoo, **{key: others.pop(key, None) for key in ("model", "config", "fingerprint")}}
        # Without the fingerprint, which would be wrong after training.
        self.lmzoo = {key: value for key, value in (lmzoo or {}).items() if key in ("lmzoo", "model", "config")}
        self.bos_token_id, self.eos_token_id, self.pad_token_id = bos_token_id, eos_token_id, pad_token_id
        if lmzoo is not None:  # transformers also makes configs without settings, to compare others with them
            settings = self.model_class_and_settings()[1]
            known = {"vocab_size": settings.vocab_size, "max_position_embeddings": settings.context_length}
            for name, value in known.items():
                if others.setdefault(name, value) != value:
                    raise CheckpointError(f"{name}={others[name]!r} must be {value}, as under the key lmzoo")
        super().__init__(**others)

    def model_class_and_settings(self) -> tuple[type[LanguageModel], ModelConfig]:
        """Returns the class of the model and its config. Raises `CheckpointError`."""
        return models.class_and_config(Path(CONFIG_FILE), self.lmzoo)
