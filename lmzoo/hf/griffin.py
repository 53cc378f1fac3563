"""Griffin in transformers: RecurrentGemma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unread, Unused, keys_from, refused
from lmzoo.hf.keys import GELU_TANH, SIZES, unused, without
from lmzoo.hf.layouts import Rows, Source, Squeezed, gate_and_up, qkv_rows
from lmzoo.hf.names import both, by_layer, frame
from lmzoo.hf.rotary import ROPE, rope
from lmzoo.hf.weights import Weights

_LAYER = "model.layers.{i}."
_MIXER, _MLP = f"{_LAYER}temporal_block.", f"{_LAYER}mlp_block."


def _rows(*names: str) -> Rows:
    return Rows(tuple(f"{_MIXER}{name}" for name in names))


COMMON: Weights = {
    **frame("model.embed_tokens", "model.final_norm", head="head.linear"),
    "blocks.{i}.0.before.weight": f"{_LAYER}temporal_pre_norm.weight",
    "blocks.{i}.1.before.weight": f"{_LAYER}channel_pre_norm.weight",
    **{f"blocks.{{i}}.1.inner.up.{kind}": gate_and_up(_MLP, kind) for kind in ("weight", "bias")},
    **both("blocks.{i}.1.inner.down", f"{_MLP}down_proj"),
}
MIXERS: dict[str, dict[str, Source]] = {
    "recurrent": {
        **{f"in_proj.{kind}": _rows(f"linear_y.{kind}", f"linear_x.{kind}") for kind in ("weight", "bias")},
        "conv_weight": Squeezed(f"{_MIXER}conv_1d.weight", axis=1),
        "conv_bias": f"{_MIXER}conv_1d.bias",
        "gates": _rows("rg_lru.input_gate_weight", "rg_lru.recurrent_gate_weight"),
        "gate_bias": _rows("rg_lru.input_gate_bias", "rg_lru.recurrent_gate_bias"),
        "decay": f"{_MIXER}rg_lru.recurrent_param",
        **both("out", f"{_MIXER}linear_out"),
    },
    "attention": {"qkv.weight": qkv_rows(_MIXER), **both("out", f"{_MIXER}o_proj")},
}


def weights(mixers: Sequence[str]) -> Weights:
    """Returns the map for a model with these mixers, "recurrent" or "attention", from bottom to top."""
    return {**COMMON, **by_layer(mixers, MIXERS, "blocks.{i}.0.inner.")}


def _mixers(config: Config) -> list[str]:
    """Returns the mixer of each layer: `block_types`, repeated."""
    words = config.value("block_types", ["recurrent", "recurrent", "attention"])
    if not words or any(word not in ("recurrent", "attention") for word in words):
        raise refused("block_types", words, "must have the words recurrent and attention alone")
    n_layers = config.layers()
    if n_layers > 100 * len(words):
        raise refused("num_hidden_layers", n_layers, "must be at most 100 times the length of block_types")
    return [words[layer % len(words)] for layer in range(n_layers)]


def _sizes(config: Config) -> dict[str, Any]:
    """Returns the pattern and the width of one of the two halves of the feed-forward layers."""
    return {"pattern": " ".join(_mixers(config)), "d_ff": config.value("intermediate_size", 7680) // 2}


def _kv_heads(config: Config) -> dict[str, Any]:
    """Returns the number of heads of keys and values, by default as many as of queries."""
    return {"n_kv_heads": config.value("num_key_value_heads", config.value("num_attention_heads", 10))}


def _positions(config: Config) -> dict[str, Any]:
    """Returns the width, the factor of the embeddings, which transformers rounds to 16 bits, and the rotary base."""
    width = config.at_least("hidden_size", 2560)
    scale = torch.tensor(math.sqrt(width), dtype=torch.bfloat16).item()
    found = rope(scaled=False, fraction="fraction", share=0.5).settings(config)
    if found["fraction"] != 0.5:
        raise refused("partial_rotary_factor", found["fraction"], "must be 0.5")
    return {"d_model": width, "embed_scale": scale, "rope_theta": found["rope_theta"]}


def _sizes_keys(ours: Settings) -> dict[str, Any]:
    return {"block_types": ours["pattern"], "intermediate_size": 2 * ours["d_ff"]}


def _positions_keys(ours: Settings) -> dict[str, Any]:
    return {"hidden_size": ours["d_model"], "rope_theta": ours["rope_theta"], "partial_rotary_factor": 0.5}


RECURRENT_GEMMA = Architecture(
    model_type="recurrent_gemma",
    classes=("RecurrentGemmaForCausalLM",),
    family="griffin",
    weights=lambda config: weights(_mixers(config)),
    keys={
        **without(SIZES, "hidden_size"),
        "max_position_embeddings": To("context_length", 256),  # of lmzoo: transformers has no such key here
        "num_attention_heads": To("n_heads", 10),
        "lru_width": To("d_rnn", None),
        "attention_window_size": To("window", 2048),
        "conv1d_width": To("d_conv", 4),
        "logits_soft_cap": To("logit_cap", 30.0),
        "rms_norm_eps": To("norm_eps", 1e-6),
        "hidden_activation": GELU_TANH,
        "head_dim": Unused(),  # computed: hidden_size / num_attention_heads
        "attention_bias": Only(False),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "embeddings_scale_by_sqrt_dim": Unread(True),
        **unused("w_init_variance_scale", "final_w_init_variance_scale"),  # initial values
    },
    together=(
        Together(("block_types", "intermediate_size"), _sizes, _sizes_keys),
        Together(("num_key_value_heads",), _kv_heads, keys_from({"num_key_value_heads": "n_kv_heads"})),
        Together((*ROPE, "hidden_size"), _positions, _positions_keys),
    ),
    aliases={"sliding_window": "attention_window_size", "_block_types": "block_types"},
)
