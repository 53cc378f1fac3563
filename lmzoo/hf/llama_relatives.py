"""More relatives of Llama in transformers: Ministral and Seed-OSS."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unused, layer_words, refused
from lmzoo.hf.keys import rope
from lmzoo.hf.llama import KEYS, KINDS, WEIGHTS


def _windows(config: Config) -> dict[str, Any]:
    """Returns the window, and which layers have it: all of them, unless `layer_types` names others."""
    window = config.get("sliding_window", 4096)
    words = ["full" if window is None else "rope"] * config.layers()
    if config.get("layer_types") is not None:
        words = config.words("layer_types", KINDS)
    if "rope" in words and window is None:
        raise refused("sliding_window", None, "must be given for the layers of layer_types with sliding_attention")
    return {"window": window if "rope" in words else None, "pattern": " ".join(words)}


def _windows_keys(ours: Settings) -> dict[str, Any]:
    return {"sliding_window": ours["window"], **layer_words("layer_types", ours["pattern"], KINDS)}


MINISTRAL = Architecture(
    model_type="ministral",
    classes=("MinistralForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={**KEYS, "num_key_value_heads": To("n_kv_heads", 8)},
    together=(rope(), Together(("sliding_window", "layer_types"), _windows, _windows_keys)),
)


def _biases(config: Config) -> dict[str, Any]:
    """Returns which projections of the attention have a bias."""
    qkv, out = config.value("attention_bias", default=True), config.value("attention_out_bias", default=False)
    if out and not qkv:
        raise refused("attention_out_bias", out, "must be false without attention_bias")
    return {"attention_bias": "all" if out else "qkv" if qkv else "none"}


def _biases_keys(ours: Settings) -> dict[str, Any]:
    biases = ours["attention_bias"]
    return {"attention_bias": biases != "none", "attention_out_bias": biases == "all"}


SEED_OSS = Architecture(
    model_type="seed_oss",
    classes=("SeedOssForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", 128),
        "mlp_bias": Only(False),
        "residual_dropout": Unused(),
    },
    together=(rope(), Together(("attention_bias", "attention_out_bias"), _biases, _biases_keys)),
)
