"""Mixtral, Qwen3-MoE, OLMoE, FlexOlmo in transformers, with one tensor for all experts of a layer, or one for each."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together, Unused, refused
from lmzoo.hf.keys import ATTENTION, SWIGLU, plain_heads, without
from lmzoo.hf.layouts import Either
from lmzoo.hf.llama import BIASES
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.names import W1_W3_W2, experts, outside
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_MLP = "model.layers.{i}.mlp."
_OLD = "model.layers.{i}.block_sparse_moe."
WEIGHTS: Weights = {
    **outside(LLAMA, ".1.inner."),
    "blocks.{i}.1.inner.router.weight": Either((f"{_OLD}gate.weight", f"{_MLP}gate.weight")),
    **experts(f"{_MLP}experts.", W1_W3_W2, each=f"{_OLD}experts."),
}
EACH: Weights = {
    **WEIGHTS,
    "blocks.{i}.1.inner.router.weight": f"{_MLP}gate.weight",
    **experts(f"{_MLP}experts."),
}
NORMS: Weights = {
    "blocks.{i}.0.inner.q_norm.norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}

KEYS: dict[str, Key] = {
    **ATTENTION,
    "hidden_act": SWIGLU,
    "head_dim": To("head_dim", None),
    "attention_bias": Only(False),
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "output_router_logits": Unused(),
    "router_aux_loss_coef": Unused(),
}
MIXTRAL = Architecture(
    model_type="mixtral",
    classes=("MixtralForCausalLM",),
    family="mixtral",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "num_key_value_heads": To("n_kv_heads", 8),
        "num_local_experts": To("n_experts", 8),
        "num_experts_per_tok": To("top_k", 2),
        "sliding_window": To("window", None),
        "router_jitter_noise": Unused(),
    },
    together=(rope(1e6),),
    aliases={"num_experts": "num_local_experts"},
)


def only_experts(config: Config) -> None:
    """Raises `CheckpointError` for layers with a plain feed-forward layer."""
    for key, value in (("decoder_sparse_step", 1), ("mlp_only_layers", list[int]())):
        if config.value(key, value) != value:
            raise refused(key, config.get(key), f"must be {value}: each layer of lmzoo's mixtral has experts")


def _sparse(config: Config) -> dict[str, Any]:
    """Refuses layers with a plain feed-forward layer, and returns the window."""
    only_experts(config)
    window = config.get("sliding_window", 4096) if config.value("use_sliding_window", False) else None
    return {"window": window}


def _window_keys(ours: Settings) -> dict[str, Any]:
    window = ours["window"]
    return {"use_sliding_window": window is not None, **({} if window is None else {"sliding_window": window})}


QWEN3_MOE = Architecture(
    model_type="qwen3_moe",
    classes=("Qwen3MoeForCausalLM",),
    family="mixtral",
    weights=EACH,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 4),
        "intermediate_size": Unused(),  # of layers without experts
        "moe_intermediate_size": To("d_ff", 768),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "num_experts": To("n_experts", 128),
        "num_experts_per_tok": To("top_k", 8),
        "norm_topk_prob": To("normalize", default=False),
        "max_window_layers": Unused(),
    },
    together=(
        rope(),
        Together(
            ("decoder_sparse_step", "mlp_only_layers", "use_sliding_window", "sliding_window"), _sparse, _window_keys
        ),
    ),
    aliases={"num_local_experts": "num_experts"},
    fixed={"qk_norm": "head"},
)


_NORMED: Weights = {**EACH, **NORMS}
OLMOE = Architecture(
    model_type="olmoe",
    classes=("OlmoeForCausalLM",),
    family="mixtral",
    weights=_NORMED,
    keys={
        **without(KEYS, "head_dim"),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "num_experts": To("n_experts", 64),
        "num_experts_per_tok": To("top_k", 8),
        "norm_topk_prob": To("normalize", default=False),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "clip_qkv": Only(None),
    },
    together=(rope(), plain_heads(2048, 16)),  # the norms of queries and keys are hidden_size wide
    aliases={"num_local_experts": "num_experts"},
    fixed={"qk_norm": "all"},
    buffers=("*.rotary_emb.inv_freq",),
)
_AFTER: Weights = {
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}
FLEX_OLMO = Architecture(
    model_type="flex_olmo",
    classes=("FlexOlmoForCausalLM",),
    family="mixtral",
    weights={**outside(_NORMED, ".before."), **_AFTER},
    keys={
        **without(OLMOE.keys, "clip_qkv"),
        "rms_norm_eps": To("norm_eps", 1e-6),
        "num_experts": To("n_experts", 7),
        "num_experts_per_tok": To("top_k", 5),
    },
    together=(rope(500000.0), plain_heads(4096, 32)),
    aliases=OLMOE.aliases,
    fixed={"qk_norm": "all", "post_norm": True},
)
