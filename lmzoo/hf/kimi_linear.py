"""Kimi Linear in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf import latent
from lmzoo.hf.architecture import Architecture, Config, Key, Only, To, Together, keys_from, refused
from lmzoo.hf.experts import DENSE_FIRST, groups
from lmzoo.hf.kda import by_head
from lmzoo.hf.keys import SIZES, SWIGLU, unused, without
from lmzoo.hf.latent import full_heads, names_of
from lmzoo.hf.layer_types import layer_types
from lmzoo.hf.layouts import Either, Rows, Squeezed, gate_and_up
from lmzoo.hf.names import W1_W3_W2, experts, frame, gated
from lmzoo.hf.rotary import ROPE
from lmzoo.hf.weights import Weights

_MIXER, _MLP, _MOE = "model.layers.{i}.self_attn.", "model.layers.{i}.mlp.", "model.layers.{i}.block_sparse_moe."
_DELTA: dict[str, str] = {
    "beta.weight": "b_proj.weight",
    "decay_down.weight": "f_a_proj.weight",
    "decay_up.weight": "f_b_proj.weight",
    "dt_bias": "dt_bias",
    "gate_down.weight": "g_a_proj.weight",
    "gate_up.weight": "g_b_proj.weight",
    "norm.weight": "o_norm.weight",
}
WEIGHTS: Weights = {
    **frame("model.embed_tokens", "model.norm"),
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    **latent.SHARED,
    **latent.LOW_RANK,
    **{f"blocks.{{i}}.0.inner.{ours}": f"{_MIXER}{theirs}" for ours, theirs in _DELTA.items()},
    "blocks.{i}.0.inner.qkv.weight": Rows(tuple(f"{_MIXER}{part}_proj.weight" for part in "qkv")),
    "blocks.{i}.0.inner.conv.weight": Squeezed(Rows(tuple(f"{_MIXER}{part}_conv1d.weight" for part in "qkv")), axis=1),
    "blocks.{i}.0.inner.A_log": by_head(f"{_MIXER}A_log"),
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.inner.up.weight": Either((gate_and_up(_MLP), gate_and_up(_MOE))),
    "blocks.{i}.1.inner.down.weight": Either((f"{_MLP}down_proj.weight", f"{_MOE}down_proj.weight")),
    "blocks.{i}.1.inner.router.weight": f"{_MOE}gate.weight",
    "blocks.{i}.1.inner.choice_bias": f"{_MOE}gate.e_score_correction_bias",
    **experts(f"{_MOE}experts.", W1_W3_W2),
    **gated("blocks.{i}.1.inner.shared.", f"{_MOE}shared_experts."),
}


def _delta(config: Config) -> dict[str, Any]:
    """Returns the sizes of the delta rule; those in `linear_attn_config` come first."""
    table = config.table("linear_attn_config")
    for key in table:
        if key not in _TABLE:
            raise refused(key, table[key], f"is not known in linear_attn_config, only {', '.join(_TABLE)}")
    return {
        "kda_dim": table.value("head_dim", config.value("linear_head_dim", 128)),
        "kda_heads": table.value("num_heads", config.value("linear_num_heads", 32)),
        "d_conv": table.value("short_conv_kernel_size", config.value("linear_conv_kernel_dim", 4)),
    }


_SIZES = {"linear_head_dim": "kda_dim", "linear_num_heads": "kda_heads", "linear_conv_kernel_dim": "d_conv"}
_TABLE = ("head_dim", "num_heads", "short_conv_kernel_size", "full_attn_layers", "kda_layers")


def _by_list(config: Config) -> list[str]:
    """Returns the mixers by default: from lists in which layers count from 1, or attention in each fourth."""
    table, n_layers = config.table("linear_attn_config"), config.layers()
    if not ("full_attn_layers" in table and "kda_layers" in table):
        return ["nope" if layer and layer % 4 == 0 else "kda" for layer in range(n_layers)]
    full, kda = (table.numbers(key) for key in ("full_attn_layers", "kda_layers"))
    if any((layer in full) == (layer in kda) for layer in range(1, n_layers + 1)):
        raise refused("linear_attn_config", table, f"must name each of {n_layers} layers once")
    return ["nope" if layer in full else "kda" for layer in range(1, n_layers + 1)]


KEYS: dict[str, Key] = {
    **without(SIZES, "max_position_embeddings"),
    "model_max_length": To("context_length"),
    "intermediate_size": To("d_ff"),
    "rms_norm_eps": To("norm_eps", 1e-5),
    "hidden_act": SWIGLU,
    **latent.KEYS,
    "q_lora_rank": To("q_rank", None),
    "moe_intermediate_size": To("d_expert", 1024),
    "num_experts": To("n_experts", 256),
    "num_shared_experts": To("n_shared", 1),
    "routed_scaling_factor": To("routed_scale", 2.446),
    "moe_renormalize": To("normalize", default=True),
    "tie_word_embeddings": Only(False),  # transformers never ties the head
    "attention_bias": Only(False),
    "mla_use_nope": Only(True),
    "moe_layer_freq": Only(1),
    "moe_router_activation_func": Only("sigmoid"),
    "use_grouped_topk": Only(True),
    **unused(*ROPE, "head_dim", "qk_head_dim", "output_router_logits", "num_nextn_predict_layers"),
}
KIMI_LINEAR = Architecture(
    model_type="kimi_linear",
    classes=("KimiLinearForCausalLM",),
    family="deepseek",
    weights=names_of(WEIGHTS, rank=None, halves=True),
    keys=KEYS,
    together=(
        Together((*_SIZES, "linear_attn_config"), _delta, keys_from(_SIZES)),
        layer_types({"full_attention": "nope", "linear_attention": "kda"}, _by_list),
        full_heads(32, kv_heads=32),
        DENSE_FIRST,
        groups(1, 1, 8, ("num_expert_group", "topk_group", "num_experts_per_token")),
    ),
    aliases={
        "max_position_embeddings": "model_max_length",
        "norm_topk_prob": "moe_renormalize",
        "n_group": "num_expert_group",
        "num_local_experts": "num_experts",
        "num_experts_per_tok": "num_experts_per_token",
        "n_shared_experts": "num_shared_experts",
    },
)
