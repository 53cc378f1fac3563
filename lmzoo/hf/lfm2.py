"""LFM2 in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together
from lmzoo.hf.keys import SIZES, unused
from lmzoo.hf.layer_types import layer_types
from lmzoo.hf.layouts import Either, Rows, Squeezed, qkv_rows
from lmzoo.hf.names import frame
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_LAYER = "model.layers.{i}."
WEIGHTS: Weights = {
    **frame("model.embed_tokens", "model.embedding_norm"),
    "blocks.{i}.0.before.weight": f"{_LAYER}operator_norm.weight",
    "blocks.{i}.0.inner.qkv.weight": qkv_rows(f"{_LAYER}self_attn."),
    "blocks.{i}.0.inner.q_norm.weight": f"{_LAYER}self_attn.q_layernorm.weight",
    "blocks.{i}.0.inner.k_norm.weight": f"{_LAYER}self_attn.k_layernorm.weight",
    "blocks.{i}.0.inner.in_proj.weight": f"{_LAYER}conv.in_proj.weight",
    "blocks.{i}.0.inner.filters": Squeezed(f"{_LAYER}conv.conv.weight", axis=1),
    "blocks.{i}.0.inner.out.weight": Either((f"{_LAYER}self_attn.out_proj.weight", f"{_LAYER}conv.out_proj.weight")),
    "blocks.{i}.1.before.weight": f"{_LAYER}ffn_norm.weight",
    "blocks.{i}.1.inner.up.weight": Rows((f"{_LAYER}feed_forward.w1.weight", f"{_LAYER}feed_forward.w3.weight")),
    "blocks.{i}.1.inner.down.weight": f"{_LAYER}feed_forward.w2.weight",
}


def _width(config: Config) -> dict[str, Any]:
    """Returns the width of the feed-forward layers: two thirds, times a factor, rounded up to a multiple."""
    width = config.value("intermediate_size", 12288)
    if config.value("block_auto_adjust_ff_dim", True):
        multiple = config.at_least("block_multiple_of", 256)
        width = int(config.value("block_ffn_dim_multiplier", 1.0, float) * int(2 * width / 3))
        width = -(-width // multiple) * multiple
    return {"d_ff": width}


def _by_index(config: Config) -> list[str]:
    """Returns the layers by default: those with attention are in `full_attn_idxs`, by default all."""
    layers = range(config.layers())
    chosen = config.numbers("full_attn_idxs", layers)
    return ["attention" if layer in chosen else "conv" for layer in layers]


def _width_keys(ours: Settings) -> dict[str, Any]:
    return {"intermediate_size": ours["d_ff"], "block_auto_adjust_ff_dim": False}


MIXERS = {"full_attention": "attention", "conv": "conv"}
KEYS: dict[str, Key] = {
    **SIZES,
    "num_attention_heads": To("n_heads"),
    "num_key_value_heads": To("n_kv_heads", 8),
    "head_dim": To("head_dim", None),
    "norm_eps": To("norm_eps", 1e-5),
    "tie_word_embeddings": To("tie_embeddings", default=True),
    "conv_L_cache": To("d_conv", 3),
    "conv_bias": Only(False),
}
WIDTHS = ("intermediate_size", "block_auto_adjust_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of")
LFM2 = Architecture(
    model_type="lfm2",
    classes=("Lfm2ForCausalLM",),
    family="lfm2",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "block_use_swiglu": Only(True),
        "use_pos_enc": Only(True),
        **unused("block_use_xavier_init", "conv_use_xavier_init", "block_mlp_init_scale", "block_out_init_scale"),
    },
    together=(
        rope(1e6),
        Together(WIDTHS, _width, _width_keys),
        layer_types(MIXERS, _by_index, others=("full_attn_idxs",)),
    ),
    aliases={
        "tie_embedding": "tie_word_embeddings",
        "block_ff_dim": "intermediate_size",
        "block_norm_eps": "norm_eps",
        "num_heads": "num_attention_heads",
        **dict.fromkeys(("block_dim", "conv_dim", "conv_dim_out"), "hidden_size"),
    },
)
