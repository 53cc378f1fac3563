"""Kimi Linear in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together, layer_words, refused
from lmzoo.hf.deepseek import DENSE_FIRST, groups
from lmzoo.hf.keys import EVERY, SWIGLU, unused
from lmzoo.hf.layouts import Either, Rows, Source, Squeezed, gate_and_up
from lmzoo.hf.names import W1_W3_W2, experts, frame, gated
from lmzoo.hf.rotary import ROPE
from lmzoo.hf.weights import Weights

_MIXER, _MLP, _MOE = "model.layers.{i}.self_attn.", "model.layers.{i}.mlp.", "model.layers.{i}.block_sparse_moe."


_LATENT: dict[str, Source] = {
    "q_down.weight": "q_a_proj.weight",
    "q_norm.weight": "q_a_layernorm.weight",
    "kv_down.weight": "kv_a_proj_with_mqa.weight",
    "kv_norm.weight": "kv_a_layernorm.weight",
    "kv_up.weight": "kv_b_proj.weight",
    "out.weight": "o_proj.weight",
}
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
    **{f"blocks.{{i}}.0.inner.{ours}": f"{_MIXER}{theirs}" for ours, theirs in {**_LATENT, **_DELTA}.items()},
    "blocks.{i}.0.inner.q.weight": f"{_MIXER}q_b_proj.weight",
    "blocks.{i}.0.inner.qkv.weight": Rows(tuple(f"{_MIXER}{part}_proj.weight" for part in "qkv")),
    "blocks.{i}.0.inner.conv.weight": Squeezed(Rows(tuple(f"{_MIXER}{part}_conv1d.weight" for part in "qkv")), axis=1),
    "blocks.{i}.0.inner.A_log": Squeezed(Squeezed(Squeezed(f"{_MIXER}A_log", axis=3), axis=1), axis=0),
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.inner.up.weight": Either((gate_and_up(_MLP), gate_and_up(_MOE))),
    "blocks.{i}.1.inner.down.weight": Either((f"{_MLP}down_proj.weight", f"{_MOE}down_proj.weight")),
    "blocks.{i}.1.inner.router.weight": f"{_MOE}gate.weight",
    "blocks.{i}.1.inner.choice_bias": f"{_MOE}gate.e_score_correction_bias",
    **experts(f"{_MOE}experts.", W1_W3_W2),
    **gated("blocks.{i}.1.inner.shared.", f"{_MOE}shared_experts."),
}


DIRECT: Weights = {**WEIGHTS, "blocks.{i}.0.inner.q.weight": f"{_MIXER}q_proj.weight"}  # q_rank is None


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


_TABLE = ("head_dim", "num_heads", "short_conv_kernel_size", "full_attn_layers", "kda_layers")
_WORDS = {"full_attention": "nope", "linear_attention": "kda"}


def _pattern(config: Config) -> dict[str, Any]:
    """Returns the mixers: from `layer_types`, or from lists in which layers count from 1, or each fourth."""
    table, n_layers = config.table("linear_attn_config"), config.layers()
    if config.get("layer_types") is not None:
        words = config.words("layer_types", _WORDS)
    elif "full_attn_layers" in table and "kda_layers" in table:
        full, kda = (table.numbers(key) for key in ("full_attn_layers", "kda_layers"))
        if any((layer in full) == (layer in kda) for layer in range(1, n_layers + 1)):
            raise refused("linear_attn_config", table, f"must name each of {n_layers} layers once")
        words = ["nope" if layer in full else "kda" for layer in range(1, n_layers + 1)]
    else:
        words = ["nope" if layer and layer % 4 == 0 else "kda" for layer in range(n_layers)]
    return {"pattern": " ".join(words)}


def _heads(config: Config) -> dict[str, Any]:
    """Returns the heads of attention, each with keys and values of its own."""
    heads = config.value("num_attention_heads", 32)
    if config.value("num_key_value_heads", heads if "num_key_value_heads" in config else 32) != heads:
        raise refused("num_key_value_heads", config.get("num_key_value_heads"), f"must be num_attention_heads={heads}")
    return {"n_heads": heads}


_TOP_K = "num_experts_per_token"


def _delta_keys(ours: Settings) -> dict[str, Any]:
    sizes = {"linear_head_dim": ours["kda_dim"], "linear_num_heads": ours["kda_heads"]}
    return {**sizes, "linear_conv_kernel_dim": ours["d_conv"]}


def _heads_keys(ours: Settings) -> dict[str, Any]:
    return {"num_attention_heads": ours["n_heads"], "num_key_value_heads": ours["n_heads"]}


KEYS: dict[str, Key] = {
    **EVERY,
    "vocab_size": To("vocab_size"),
    "hidden_size": To("d_model"),
    "num_hidden_layers": To("n_layers"),
    "model_max_length": To("context_length"),
    "intermediate_size": To("d_ff"),
    "rms_norm_eps": To("norm_eps", 1e-5),
    "hidden_act": SWIGLU,
    "q_lora_rank": To("q_rank", None),
    "kv_lora_rank": To("kv_rank", 512),
    "qk_nope_head_dim": To("nope_dim", 128),
    "qk_rope_head_dim": To("rope_dim", 64),
    "v_head_dim": To("v_dim", 128),
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
    weights=lambda config: DIRECT if config.get("q_lora_rank") is None else WEIGHTS,
    keys=KEYS,
    together=(
        Together(
            ("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim", "linear_attn_config"), _delta, _delta_keys
        ),
        Together(("layer_types",), _pattern, lambda ours: layer_words("layer_types", ours["pattern"], _WORDS)),
        DENSE_FIRST,
        Together(("num_attention_heads", "num_key_value_heads"), _heads, _heads_keys),
        groups(1, 1, 8, ("num_expert_group", "topk_group", _TOP_K)),
    ),
    aliases={
        "max_position_embeddings": "model_max_length",
        "norm_topk_prob": "moe_renormalize",
        "n_group": "num_expert_group",
        "num_local_experts": "num_experts",
        "num_experts_per_tok": _TOP_K,
        "n_shared_experts": "num_shared_experts",
    },
)
