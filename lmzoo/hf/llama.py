"""Llama and its relatives in transformers: Llama, Mistral, Qwen2, Qwen3, SmolLM3 and Phi-3."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import (
    Architecture,
    Config,
    Only,
    Settings,
    To,
    Together,
    Unread,
    Unused,
    layer_words,
    refused,
)
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.layouts import gate_and_up
from lmzoo.hf.names import both, frame, qkv
from lmzoo.hf.rotary import parameters_of, rope, with_parameters
from lmzoo.hf.weights import Weights

WEIGHTS: Weights = {
    **frame("model.embed_tokens", "model.norm"),
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    **qkv("model.layers.{i}.self_attn."),
    "blocks.{i}.0.inner.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    **both("blocks.{i}.0.inner.out", "model.layers.{i}.self_attn.o_proj"),
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    **{f"blocks.{{i}}.1.inner.up.{kind}": gate_and_up("model.layers.{i}.mlp.", kind) for kind in ("weight", "bias")},
    **both("blocks.{i}.1.inner.down", "model.layers.{i}.mlp.down_proj"),
}
INV_FREQ = ("*.rotary_emb.inv_freq",)  # a buffer in files of old versions
BIASES = {False: "none", True: "all"}
QKV_BIASES = {False: "none", True: "qkv"}
KINDS = {"full_attention": "full", "sliding_attention": "rope"}

KEYS = {
    **ATTENTION,
    "hidden_act": SWIGLU,
    "head_dim": To("head_dim", None),
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "mlp_bias": Only(False),
}
MLP_BIAS = To("mlp_bias", default=False)


def all_biases(key: str) -> Together:
    """Returns the key, false by default, by which all projections have a bias, or none."""

    def settings(config: Config) -> dict[str, Any]:
        has = config.value(key, default=False)
        return {"attention_bias": BIASES[has], "mlp_bias": has}

    return Together((key,), settings, lambda ours: {key: ours["mlp_bias"]})


_NO_WINDOW = "has sliding_attention: use_sliding_window must be true, and sliding_window a number"


def _windows(config: Config) -> dict[str, Any]:
    """Returns the window, and which layers have it: from `max_window_layers` on, or those in `layer_types`."""
    kinds, window = config.get("layer_types"), None
    if config.value("use_sliding_window", False) and config.get("sliding_window", 4096) is not None:
        window = config.value("sliding_window", 4096)
    if kinds is not None:
        words = config.words("layer_types", KINDS)
    else:
        first = config.value("max_window_layers", 28)
        words = ["rope" if window is not None and layer >= first else "full" for layer in range(config.layers())]
    if "rope" not in words:
        return {}
    if window is None:
        raise refused("layer_types", kinds, _NO_WINDOW)
    return {"window": window, "pattern": " ".join(words)}


def windows_keys(ours: Settings) -> dict[str, Any]:
    """Returns the keys of windows for the settings of a model: `_windows` read backwards."""
    if "rope" not in ours["pattern"]:
        return {"use_sliding_window": False}
    windows = {"use_sliding_window": True, "sliding_window": ours["window"]}
    return {**windows, **layer_words("layer_types", ours["pattern"], KINDS)}


WINDOWS = Together(("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"), _windows, windows_keys)

LLAMA = Architecture(
    model_type="llama",
    classes=("LlamaForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "mlp_bias": MLP_BIAS,
        "rope_interleaved": Unread(False),
        **unused("is_llama_config", "max_sequence_length"),
    },
    together=(rope(),),
    buffers=INV_FREQ,
)
MISTRAL = Architecture(
    model_type="mistral",
    classes=("MistralForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={**KEYS, "num_key_value_heads": To("n_kv_heads", 8), "sliding_window": To("window", 4096)},
    together=(rope(),),
    buffers=INV_FREQ,
)
QWEN2 = Architecture(
    model_type="qwen2",
    classes=("Qwen2ForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={**KEYS, "num_key_value_heads": To("n_kv_heads", 32), "use_mrope": Unread(False)}
    | {"dual_chunk_attention_config": Unused()},
    together=(rope(), WINDOWS),
    fixed={"attention_bias": "qkv"},
    buffers=INV_FREQ,
)
QWEN3 = Architecture(
    model_type="qwen3",
    classes=("Qwen3ForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 32),
        "head_dim": To("head_dim", 128),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
    },
    together=(rope(), WINDOWS),
    fixed={"qk_norm": True},
)


def _rope_or_none(config: Config) -> dict[str, Any]:
    """Returns the pattern of SmolLM3: layers without positions by `no_rope_layers`, or each n-th by the interval."""
    n_layers, interval = config.layers(), config.at_least("no_rope_layer_interval", 4)
    rotates = config.value("no_rope_layers", [int((layer + 1) % interval != 0) for layer in range(n_layers)])
    if len(rotates) < n_layers or any(flag not in (0, 1) for flag in rotates):
        raise refused("no_rope_layers", rotates, f"must have 0 or 1 for each of {n_layers} layers")
    rotates = rotates[:n_layers]
    windows, window = config.value("use_sliding_window", False), config.value("sliding_window", 0)
    if config.get("layer_types") is not None:
        kinds = config.words("layer_types", KINDS)
        if "rope" in kinds and not (windows and window):
            raise refused("layer_types", config["layer_types"], _NO_WINDOW)
    else:
        kinds = ["rope" if windows and window and not flag else "full" for flag in rotates]
    words = [_SMOLLM3[kind == "rope", bool(flag)] for kind, flag in zip(kinds, rotates, strict=True)]
    return {"pattern": " ".join(words), "window": window if "rope" in kinds else None}


# Our words, by whether a layer has a window, and positions.
_SMOLLM3 = {(True, True): "rope", (False, True): "full", (True, False): "nope_window", (False, False): "nope"}


def _rope_or_none_keys(ours: Settings) -> dict[str, Any]:
    words = ours["pattern"]
    theirs = {word: kind for kind, word in _SMOLLM3.items()}
    kinds = [theirs[word] for word in words]
    found: dict[str, Any] = {"no_rope_layers": [int(rotates) for _, rotates in kinds], "use_sliding_window": False}
    if any(has_window for has_window, _ in kinds):
        layers = ["sliding_attention" if has_window else "full_attention" for has_window, _ in kinds]
        found |= {"use_sliding_window": True, "sliding_window": ours["window"], "layer_types": layers}
    return found


SMOLLM3 = Architecture(
    model_type="smollm3",
    classes=("SmolLM3ForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 4),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "mlp_bias": MLP_BIAS,
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "max_window_layers": Unused(),
    },
    together=(
        rope(2e6),
        Together(
            ("no_rope_layers", "no_rope_layer_interval", "use_sliding_window", "sliding_window", "layer_types"),
            _rope_or_none,
            _rope_or_none_keys,
        ),
    ),
)


def _long_positions(config: Config) -> dict[str, Any]:
    """Returns the rotary positions of Phi-3; the key of the config for the length of the training has a default."""
    parameters = parameters_of(config)
    if parameters.get("rope_type", parameters.get("type")) in ("su", "yarn"):  # names of old files
        config = with_parameters(config, lambda found: {**found, "rope_type": "longrope"})
    found = dict(_PHI3_ROPE.settings(Config({"original_max_position_embeddings": 4096, **config})))
    rule = found["rope_scaling"].partition(" ")[0]
    if rule not in ("none", "longrope"):
        raise refused("rope_type", rule, "must be 'default' or 'longrope'")
    return found


def _long_positions_keys(ours: Settings) -> dict[str, Any]:
    found = _PHI3_ROPE.inverse_of(ours)
    length = found.get("rope_scaling", {}).pop("original_max_position_embeddings", None)
    return found if length is None else {**found, "original_max_position_embeddings": length}


_PHI3_ROPE = rope(fraction="rotary_fraction")
PHI3 = Architecture(
    model_type="phi3",
    classes=("Phi3ForCausalLM",),
    family="llama",
    weights={
        **WEIGHTS,
        "blocks.{i}.0.inner.qkv.weight": "model.layers.{i}.self_attn.qkv_proj.weight",
        "blocks.{i}.1.inner.up.weight": "model.layers.{i}.mlp.gate_up_proj.weight",
    },
    keys={
        **KEYS,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "sliding_window": To("window", None),
        "attention_bias": Only(False),
        "lm_head_bias": Unread(False),
        "full_attn_mod": Unread(1),
        "interpolate_factor": Unread(1),
    },
    together=(Together(_PHI3_ROPE.keys, _long_positions, _long_positions_keys),),
    buffers=INV_FREQ,
)
