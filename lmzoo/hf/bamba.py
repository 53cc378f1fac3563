"""Bamba in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, refused
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.mamba2 import LIMITS, MIXER_HEADS, MIXER_KEYS, mixer
from lmzoo.hf.names import gated
from lmzoo.hf.rotary import parameters_for, rope
from lmzoo.hf.weights import Weights

_LAYER = "model.layers.{i}."
WEIGHTS: Weights = {
    **LLAMA,
    **mixer("blocks.{i}.0.inner.", f"{_LAYER}mamba."),
    "blocks.{i}.1.before.weight": f"{_LAYER}pre_ff_layernorm.weight",
    **gated("blocks.{i}.1.inner.", f"{_LAYER}feed_forward."),
    "norm.weight": "model.final_layernorm.weight",
}


def _pattern(config: Config) -> dict[str, Any]:
    """Returns the mixers: attention in the layers that are named, Mamba-2 in all others."""
    chosen = config.numbers("attn_layer_indices")
    words = ["attention" if layer in chosen else "mamba2" for layer in range(config.layers())]
    if "layer_types" in config:
        known = {"full_attention": "attention", "linear_attention": "mamba2"}
        if config.words("layer_types", known) != words:
            raise refused("layer_types", config["layer_types"], "must agree with attn_layer_indices")
    return {"pattern": " ".join(words)}


def _pattern_keys(ours: Settings) -> dict[str, Any]:
    return {"attn_layer_indices": [layer for layer, word in enumerate(ours["pattern"]) if word == "attention"]}


ROTARY = rope(fraction="rotary_fraction", share=0.5)


def _rotary(config: Config) -> Mapping[str, Any]:
    """Returns the rotary positions. Outside of `rope_parameters`, transformers replaces another share than a half."""
    if config.value("partial_rotary_factor", 0.5, float) != 0.5:
        raise refused("partial_rotary_factor", config["partial_rotary_factor"], "must be 0.5, or be in rope_parameters")
    return ROTARY.settings(config)


def _rotary_keys(ours: Settings) -> dict[str, Any]:
    return {"rope_parameters": {**parameters_for(ours), "partial_rotary_factor": ours["rotary_fraction"]}}


BAMBA = Architecture(
    model_type="bamba",
    classes=("BambaForCausalLM",),
    family="hybrid",
    weights=WEIGHTS,
    keys={
        **ATTENTION,
        "num_key_value_heads": To("n_kv_heads", 8),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": SWIGLU,
        "tie_word_embeddings": To("tie_embeddings", default=False),
        **MIXER_KEYS,
        "attention_bias": Only(False),
        "mlp_bias": Only(False),
        **unused("use_mamba_kernels", "num_logits_to_keep", "z_loss_coefficient", "attn_rotary_emb"),
    },
    together=(
        MIXER_HEADS,
        LIMITS,
        Together(("attn_layer_indices", "layer_types"), _pattern, _pattern_keys),
        Together(ROTARY.keys, _rotary, _rotary_keys),
    ),
    aliases={"layers_block_type": "layer_types"},
)
