"""Zamba 2 in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.hf.architecture import (
    Architecture,
    Config,
    Key,
    Only,
    To,
    Together,
    keys_from,
    refused,
)
from lmzoo.hf.keys import SIZES, unread, unused
from lmzoo.hf.layer_types import layer_types, words_of
from lmzoo.hf.layouts import Rows, Source, qkv_rows
from lmzoo.hf.mamba2 import mixer
from lmzoo.hf.names import frame
from lmzoo.hf.rotary import ROPE, rope
from lmzoo.hf.weights import Weights

PATTERN = layer_types({"mamba": "mamba2", "linear_attention": "mamba2", "hybrid": "shared"}, key="layers_block_type")


def _weights(config: Config) -> Weights:
    """Returns the names of the weights. Those of a shared block are saved at its first use, with all low-rank maps."""
    uses = [layer for layer, word in enumerate(words_of(PATTERN, config)) if word == "shared"]
    shared: dict[str, Source] = {}
    for use, layer in enumerate(uses):
        first = uses[use % config.value("num_mem_blocks", 1)]
        shared |= _shared(f"blocks.{layer}.inner.0.inner.", f"model.layers.{first}.shared_transformer.", use)
    return {
        **frame("model.embed_tokens", "model.final_layernorm"),
        "blocks.{i}.before.weight": "model.layers.{i}.input_layernorm.weight",
        **mixer("blocks.{i}.inner.", "model.layers.{i}.mamba."),
        "blocks.{i}.inner.0.inner.out.weight": "model.layers.{i}.linear.weight",
        "blocks.{i}.inner.1.weight": "model.layers.{i}.mamba_decoder.input_layernorm.weight",
        **mixer("blocks.{i}.inner.2.", "model.layers.{i}.mamba_decoder.mamba."),
        **shared,
    }


def _shared(ours: str, theirs: str, use: int) -> dict[str, Source]:
    """Returns the names of a shared block, with the low-rank maps of one use."""
    attention, mlp = f"{theirs}self_attn.", f"{theirs}feed_forward."
    qkv = qkv_rows(attention)
    lists = [f"{attention}linear_{part}_adapter_list.{use}." for part in "qkv"]
    return {
        f"{ours}norm.weight": f"{theirs}input_layernorm.weight",
        f"{ours}attention.qkv.weight": qkv,
        f"{ours}attention.qkv.base.weight": qkv,
        f"{ours}attention.qkv.down.weight": Rows(tuple(f"{each}0.weight" for each in lists)),
        f"{ours}attention.qkv.up": Rows(tuple(f"{each}1.weight" for each in lists)),
        f"{ours}attention.out.weight": f"{attention}o_proj.weight",
        f"{ours}mlp_norm.weight": f"{theirs}pre_ff_layernorm.weight",
        f"{ours}mlp.up.base.weight": f"{mlp}gate_up_proj.weight",
        f"{ours}mlp.up.down.weight": f"{mlp}gate_up_proj_adapter_list.{use}.0.weight",
        f"{ours}mlp.up.up": f"{mlp}gate_up_proj_adapter_list.{use}.1.weight",
        f"{ours}mlp.down.weight": f"{mlp}down_proj.weight",
    }


def _blocks(config: Config) -> dict[str, Any]:
    """Returns the number of shared blocks. Keys that follow from others must agree with them."""
    words, blocks = words_of(PATTERN, config), config.at_least("num_mem_blocks", 1)
    width, heads, inner = (config.value(key, default) for key, default in _WIDTHS)
    computed = {
        "hybrid_layer_ids": [layer for layer, word in enumerate(words) if word == "shared"],
        "attention_hidden_size": 2 * width,
        "ffn_hidden_size": config.value("intermediate_size", 4 * width),
        "attention_head_dim": 2 * width // max(1, heads),
        "mamba_headdim": config.value("mamba_expand", 2) * width // max(1, inner),
    }
    for key, value in computed.items():
        if config.get(key, value) != value:
            raise refused(key, config[key], f"must be {value}, which follows from other keys")
    return {"n_shared": blocks}


def _rotary(config: Config) -> Mapping[str, Any]:
    """Returns the rotary positions, for heads of twice the usual width; without `use_mem_rope`, of any width."""
    width = 2 * config.value("hidden_size", 2560) // max(1, config.value("num_attention_heads", 32))
    return rope().settings(Config({**config, "head_dim": width if config.value("use_mem_rope", False) else 2}))


_WIDTHS = (("hidden_size", 2560), ("num_attention_heads", 32), ("n_mamba_heads", 8))
_BLOCKS = (
    *("num_mem_blocks", "hybrid_layer_ids"),
    *("attention_hidden_size", "attention_head_dim", "mamba_headdim", "ffn_hidden_size"),
)
KEYS: dict[str, Key] = {
    **SIZES,
    "num_attention_heads": To("n_heads"),
    "num_key_value_heads": To("n_kv_heads", None),
    "intermediate_size": To("d_ff", None),
    "rms_norm_eps": To("norm_eps", 1e-5),
    "hidden_act": Only("gelu"),
    "tie_word_embeddings": Only(True),  # without it, transformers does not share the blocks either
    "mamba_d_state": To("d_state", 64),
    "mamba_d_conv": To("d_conv", 4),
    "mamba_expand": To("expand", 2),
    "mamba_ngroups": To("ssm_groups", 1),
    "n_mamba_heads": To("ssm_heads", 8),
    "time_step_min": To("dt_min", 1e-3),
    "adapter_rank": To("adapter_rank", 128),
    "use_shared_attention_adapter": To("adapts_attention", default=False),
    "use_mem_rope": To("rotates", default=False),
    "add_bias_linear": Only(False),
    "use_long_context": Only(False),
    **unread(True, "use_shared_mlp_adapter", "gated_linear_unit"),
    **unused("use_conv_bias"),  # the convolution always has a bias
    **unused("time_step_limit", "kv_channels", "num_query_groups"),
    **unused("time_step_max", "time_step_floor"),  # for initial values
    **unused("chunk_size", "use_mem_eff_path", "use_mamba_kernels", "num_logits_to_keep"),
}
ZAMBA2 = Architecture(
    model_type="zamba2",
    classes=("Zamba2ForCausalLM",),
    family="zamba2",
    weights=_weights,
    keys=KEYS,
    together=(
        PATTERN,
        Together(_BLOCKS, _blocks, keys_from({"num_mem_blocks": "n_shared"})),
        Together(ROPE, _rotary, rope().inverse),
    ),
    aliases={"layer_types": "layers_block_type", "head_dim": "attention_head_dim"},
)
