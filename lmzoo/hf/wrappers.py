"""Multimodal models of transformers whose language model alone is loaded: its config is in `text_config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lmzoo.hf.architecture import Architecture, Config, refused
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.gemma3 import GEMMA3_TEXT
from lmzoo.hf.keys import EVERY, WITHOUT_EFFECT
from lmzoo.hf.llama import MISTRAL
from lmzoo.hf.llama_relatives import MINISTRAL3
from lmzoo.hf.qwen3_next import QWEN3_5_MOE_TEXT, QWEN3_5_TEXT

_KNOWN = WITHOUT_EFFECT | {"text_config", "vision_config", "tie_word_embeddings", "language_model_only"}
_TOKENS = ("_token_id", "_token_index", "_tokens_per_image")  # ends of keys for images and video
_PREFIXES = {
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
}
_PROJECTOR = ("projector_hidden_act", "multimodal_projector_bias", "spatial_merge_size", "vision_feature_layer")
_OTHER_PARTS = ("visual", "vision_tower", "multi_modal_projector")


@dataclass(frozen=True)
class Wrapper:
    """A multimodal model: the architectures of its language model, its class, and the default of the tied head."""

    texts: tuple[Architecture, ...]  # the first one is the default
    model: str
    tied: bool
    vision: tuple[str, ...] = ()  # keys for the other parts


_HEADS = {"num_attention_heads": 16, "max_position_embeddings": 32768, "vocab_size": 248320}
# Sizes of a `text_config` that does not name them: transformers writes only what differs from its defaults.
SIZES: Mapping[str, Mapping[str, int]] = {
    "qwen3_5_text": {**_HEADS, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32},
    "qwen3_5_moe_text": {**_HEADS, "hidden_size": 2048, "num_hidden_layers": 40},
    "gemma3_text": {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26}
    | {"num_attention_heads": 8, "max_position_embeddings": 131072},
    "mistral": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "max_position_embeddings": 131072},
    "ministral3": {"vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34}
    | {"num_attention_heads": 32, "max_position_embeddings": 262144},
}
WRAPPERS: Mapping[str, Wrapper] = {
    "qwen3_5": Wrapper((QWEN3_5_TEXT,), "Qwen3_5ForConditionalGeneration", tied=False),
    "qwen3_5_moe": Wrapper((QWEN3_5_MOE_TEXT,), "Qwen3_5MoeForConditionalGeneration", tied=False),
    "gemma3": Wrapper((GEMMA3_TEXT,), "Gemma3ForConditionalGeneration", tied=True),
    "mistral3": Wrapper((MISTRAL, MINISTRAL3), "Mistral3ForConditionalGeneration", tied=True, vision=_PROJECTOR),
}


def unwrapped(config: Config) -> tuple[Config, Mapping[str, Architecture]]:
    """Returns the config of the language model inside, and its architecture by its type; other configs as they are.

    Raises `CheckpointError` for a key beside `text_config` that lmzoo does not know.
    """
    wrapper = WRAPPERS.get(str(config.get("model_type")))
    if wrapper is None:
        return config, ARCHITECTURES
    for key in config:
        if key in EVERY:
            EVERY[key].settings(key, config)
        elif key not in {*_KNOWN, *wrapper.vision} and not key.endswith((*_TOKENS, *(f"{end}s" for end in _TOKENS))):
            raise refused(key, config[key], f"is not a key of {config['model_type']} that lmzoo knows")
    text = config.table("text_config")
    known = {each.model_type: each for each in wrapper.texts}
    model_type = text.value("model_type", next(iter(known)))
    if model_type not in known:
        raise refused("model_type", model_type, f"of text_config must be {' or '.join(known)}")
    tied = config.value("tie_word_embeddings", wrapper.tied)
    inner = {"model_type": model_type, "architectures": config.get("architectures")}
    inside = known[model_type]
    architecture = replace(
        inside,
        classes=(*inside.classes, wrapper.model),
        prefixes=_PREFIXES,
        buffers=(*inside.buffers, *(f"{before}{part}.*" for part in _OTHER_PARTS for before in ("", "model."))),
    )
    text = Config({**SIZES[model_type], **text, **inner, "tie_word_embeddings": tied})
    return text, {architecture.model_type: architecture}
