"""OLMo 2, OLMo 3 and EXAONE 4.0 in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import (
    Architecture,
    Config,
    Key,
    Only,
    Settings,
    To,
    Together,
    Unread,
    Unused,
    layer_words,
    refused,
)
from lmzoo.hf.keys import ATTENTION, HEAD_DIM, SWIGLU
from lmzoo.hf.llama import INV_FREQ
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.rotary import ROPE, rope, ropes_by_kind, ropes_by_kind_keys
from lmzoo.hf.weights import Weights

_OTHERS = ("before.weight", "q_norm.weight", "k_norm.weight")
WEIGHTS: Weights = {
    **{name: source for name, source in LLAMA.items() if not name.endswith(_OTHERS)},
    "blocks.{i}.0.inner.q_norm.norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}

KEYS: dict[str, Key] = {
    **ATTENTION,
    **HEAD_DIM,
    "rms_norm_eps": To("norm_eps", 1e-5),
    "hidden_act": SWIGLU,
    "attention_bias": Only(False),
    "tie_word_embeddings": To("tie_embeddings", default=False),
}
OLMO2 = Architecture(
    model_type="olmo2",
    classes=("Olmo2ForCausalLM",),
    family="olmo2",
    weights=WEIGHTS,
    keys=KEYS,
    together=(rope(),),
    buffers=INV_FREQ,
)


def _windows(config: Config, windowed: str, full: str, every: int) -> dict[str, Any]:
    """Returns the window, and the layers: all but each n-th have one, unless `layer_types` names them."""
    kinds = ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(config.layers())]
    given = config if config.get("layer_types") is not None else Config({**config, "layer_types": kinds})
    words = given.words("layer_types", {"sliding_attention": windowed, "full_attention": full})
    window = config.get("sliding_window", 4096)
    if windowed in words and window is None:
        raise refused("sliding_window", None, "must be given for the layers of layer_types with sliding_attention")
    return {"pattern": " ".join(words), **({} if window is None else {"window": window})}


def _olmo3(config: Config) -> dict[str, Any]:
    """Returns the layers and their rotary positions, which are scaled in layers without a window alone."""
    found = ropes_by_kind(config, 500000.0, 500000.0)
    local = found.pop("local_rope_theta")
    if local != found["rope_theta"]:
        raise refused("rope_theta", found["rope_theta"], f"must be {local} in all layers")
    return {**found, **_windows(config, "local", "rope", 4)}


_OLMO3 = {"sliding_attention": "local", "full_attention": "rope"}


def _olmo3_keys(ours: Settings) -> dict[str, Any]:
    found = ropes_by_kind_keys({**ours, "local_rope_theta": ours["rope_theta"]})
    return {**found, "sliding_window": ours["window"], **layer_words("layer_types", ours["pattern"], _OLMO3)}


OLMO3 = Architecture(
    model_type="olmo3",
    classes=("Olmo3ForCausalLM",),
    family="olmo2",
    weights=WEIGHTS,
    keys=KEYS,
    together=(Together((*ROPE, "sliding_window", "layer_types"), _olmo3, _olmo3_keys),),
)


def _exaone4(config: Config) -> dict[str, Any]:
    """Returns the layers: those without a window have no positions, but if no layer has one, all have."""
    if config.get("sliding_window", 4096) is None:
        return _windows(Config({**config, "sliding_window": None}), "window", "rope", 1)
    if config.get("layer_types") is not None:  # then transformers does not read the pattern, a text in released models
        return _windows(config, "window", "nope", 1)
    return _windows(config, "window", "nope", config.at_least("sliding_window_pattern", 4))


def _exaone4_keys(ours: Settings) -> dict[str, Any]:
    has_windows = "rope" not in ours["pattern"]
    known = {"sliding_attention": "window", "full_attention": "nope" if has_windows else "rope"}
    layers = layer_words("layer_types", ours["pattern"], known)
    return {**layers, "sliding_window": ours["window"] if has_windows else None}


EXAONE4_LAYERS = Together(("sliding_window", "sliding_window_pattern", "layer_types"), _exaone4, _exaone4_keys)
EXAONE4 = Architecture(
    model_type="exaone4",
    classes=("Exaone4ForCausalLM",),
    family="olmo2",
    weights={
        **WEIGHTS,
        "blocks.{i}.0.inner.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
        "blocks.{i}.0.inner.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    },
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 32),
        "reorder_qk_norm": Unread(True),
        "max_window_layers": Unused(),
    },
    together=(rope(), EXAONE4_LAYERS),
    fixed={"qk_norm": "head"},
)
