"""GLM-4.5, dots.llm1, Solar Open and MiniMax-M2 in transformers: grouped queries, and the experts of DeepSeek-V3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, To, Together, Unread, Unused, checked, refused
from lmzoo.hf.deepseek import V3
from lmzoo.hf.experts import MTP_LAYER, groups
from lmzoo.hf.keys import ATTENTION, SWIGLU, unread, unused
from lmzoo.hf.layouts import Either
from lmzoo.hf.llama import BIASES, KINDS, QKV_BIASES
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.mixtral import NORMS
from lmzoo.hf.names import W1_W3_W2, experts, outside, within
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_MLP, _OLD = "model.layers.{i}.mlp.", "model.layers.{i}.block_sparse_moe."
WEIGHTS: Weights = {
    **outside(V3, ".0.inner."),
    **within(LLAMA, ".0.inner."),
}
KEYS: dict[str, Key] = {
    **ATTENTION,
    "head_dim": To("head_dim", None),
    "hidden_act": SWIGLU,
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "moe_intermediate_size": To("d_expert", 1408),
    "n_routed_experts": To("n_experts", 128),
    "n_shared_experts": To("n_shared", 1),
    "routed_scaling_factor": To("routed_scale", 1.0),
    "norm_topk_prob": To("normalize", default=True),
    "output_router_logits": Unused(),
    "num_nextn_predict_layers": Unused(),  # of multi-token prediction
}
_GLM: dict[str, Key] = {
    **KEYS,
    "num_key_value_heads": To("n_kv_heads", 8),
    "rms_norm_eps": To("norm_eps", 1e-5),
    "attention_bias": To("attention_bias", default=False, values=QKV_BIASES),
}
_ALIASES = {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"}
GLM4_MOE = Architecture(
    model_type="glm4_moe",
    classes=("Glm4MoeForCausalLM",),
    family="deepseek",
    weights=WEIGHTS,
    keys={
        **_GLM,
        "first_k_dense_replace": To("n_dense", 1),
        "use_qk_norm": To("qk_norm", default=False, values={False: "none", True: "head"}),
    },
    together=(rope(fraction="rotary_fraction", share=0.5), groups(1, 1, 8)),
    aliases=_ALIASES,
    fixed={"pattern": "grouped"},
    buffers=MTP_LAYER,
)
SOLAR_OPEN = Architecture(
    model_type="solar_open",
    classes=("SolarOpenForCausalLM",),
    family="deepseek",
    weights=WEIGHTS,
    keys={
        **_GLM,
        "head_dim": To("head_dim", 128),
        "moe_intermediate_size": To("d_expert", 1280),
        "intermediate_size": Unused(),  # of layers without experts
    },
    together=(rope(1e6), groups(1, 1, 8)),
    aliases=_ALIASES,
    fixed={"pattern": "grouped", "n_dense": 0},
)


def _no_windows(config: Config) -> dict[str, Any]:
    """Refuses layers with a window."""
    words = ["full"] * config.layers()
    if config.get("layer_types") is not None:
        words = config.words("layer_types", KINDS)
    elif config.get("sliding_window", 4096) is not None and config.value("max_window_layers", 62) < len(words):
        raise refused("max_window_layers", config.get("max_window_layers"), "must be at least num_hidden_layers")
    if "rope" in words:
        raise refused("layer_types", config["layer_types"], "must be full_attention in all layers")
    return {}


DOTS1 = Architecture(
    model_type="dots1",
    classes=("Dots1ForCausalLM",),
    family="deepseek",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 32),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "n_routed_experts": To("n_experts"),
        "n_shared_experts": To("n_shared"),
        "first_k_dense_replace": To("n_dense", 0),
        "norm_topk_prob": To("normalize", default=False),
        "moe_layer_freq": Unread(1),
        "scoring_func": Unread("noaux_tc", ("sigmoid",)),
        "use_sliding_window": Unread(False),
    },
    together=(
        *(rope(), groups(1, 1, 8)),
        Together(
            ("layer_types", "sliding_window", "max_window_layers"),
            _no_windows,
            lambda ours: {"layer_types": ["full_attention"] * ours["n_layers"]},
        ),
    ),
    aliases=_ALIASES,
    fixed={"pattern": "grouped", "qk_norm": "head"},
)
_SHARE = rope(5e6, fraction="rotary_fraction")


def _rotated(config: Config) -> Mapping[str, Any]:
    """Returns the rotary positions; `rotary_dim` stands for the share of a head that is rotated."""
    if config.get("rotary_dim") is not None and config.get("partial_rotary_factor") is None:
        share = config.value("rotary_dim", 0) / max(1, config.value("head_dim", 128))
        config = Config({**config, "partial_rotary_factor": share})
    return _SHARE.settings(config)


def _all_softmax(config: Config) -> None:
    """Refuses layers with linear attention, which transformers does not read."""
    if config.numbers("attn_type_list") - {1}:
        raise refused("attn_type_list", config["attn_type_list"], "must have 1 for all layers")


MINIMAX_M2 = Architecture(
    model_type="minimax_m2",
    classes=("MiniMaxM2ForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        **NORMS,
        **experts(f"{_MLP}experts.", W1_W3_W2, each=f"{_OLD}experts."),
        "blocks.{i}.1.inner.router.weight": Either((f"{_OLD}gate.weight", f"{_MLP}gate.weight")),
        "blocks.{i}.1.inner.choice_bias": Either(
            (f"{_OLD}e_score_correction_bias", f"{_MLP}e_score_correction_bias"),
        ),
    },
    keys={
        **ATTENTION,
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", 128),
        "hidden_act": SWIGLU,
        "intermediate_size": To("d_expert", 1536),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "num_local_experts": To("n_experts", 256),
        "num_experts_per_tok": To("top_k", 8),
        **unused("output_router_logits", "router_aux_loss_coef", "router_jitter_noise"),
        "sliding_window": Unread(None),
        "scoring_func": Unread("sigmoid"),
        "qk_norm_type": Unread("per_layer"),
        **unread(True, "use_qk_norm", "use_routing_bias"),
        **unread(1.0, "layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta"),
        **unused("mlp_intermediate_size", "shared_moe_mode"),
        **unused("use_mtp", "num_mtp_modules", "mtp_transformer_layers"),
        "shared_intermediate_size": Unread(0),
    },
    together=(
        Together((*_SHARE.keys, "rotary_dim"), _rotated, _SHARE.inverse),
        checked(("attn_type_list",), _all_softmax),
    ),
    aliases={"num_experts": "num_local_experts"},
    fixed={"pattern": "grouped", "qk_norm": "all", "n_dense": 0, "n_shared": 0},
)
