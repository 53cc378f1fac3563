"""Relatives of DeepSeek-V3 in transformers: GLM-4.7-Flash (`glm4_moe_lite`), and Youtu, which has no experts."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, To, Together, Unread, Unused
from lmzoo.hf.deepseek import DEEPSEEK_V3
from lmzoo.hf.experts import FIRST_ONE_DENSE, MTP_LAYER, groups
from lmzoo.hf.keys import without
from lmzoo.hf.latent import latent_attention

GLM4_MOE_LITE = Architecture(
    model_type="glm4_moe_lite",
    classes=("Glm4MoeLiteForCausalLM",),
    family="deepseek",
    weights=DEEPSEEK_V3.weights,
    keys={
        **without(DEEPSEEK_V3.keys, "head_dim"),
        "first_k_dense_replace": Unread(1),  # transformers reads mlp_layer_types
        "rms_norm_eps": To("norm_eps", 1e-5),
        "q_lora_rank": To("q_rank", 768),
        "qk_nope_head_dim": To("nope_dim", 192),
        "v_head_dim": To("v_dim", 256),
        "moe_intermediate_size": To("d_expert", 1536),
        "n_routed_experts": To("n_experts", 64),
        "routed_scaling_factor": To("routed_scale", 1.8),
    },
    together=(
        latent_attention(kv_heads=20),
        groups(1, 1, 4),
        FIRST_ONE_DENSE,
    ),
    aliases={
        "num_local_experts": "n_routed_experts",
        "num_mtp_layers": "num_nextn_predict_layers",
        "head_dim": "qk_rope_head_dim",
    },
    buffers=MTP_LAYER,
)


def _no_experts(config: Config) -> dict[str, Any]:
    return {"n_dense": config.layers()}


_EXPERTS = (
    *("moe_intermediate_size", "n_routed_experts", "n_shared_experts", "first_k_dense_replace"),
    *("routed_scaling_factor", "norm_topk_prob", "topk_method", "scoring_func", "moe_layer_freq"),
)
YOUTU = Architecture(
    model_type="youtu",
    classes=("YoutuForCausalLM",),
    family="deepseek",
    weights=DEEPSEEK_V3.weights,
    keys={
        **without(DEEPSEEK_V3.keys, *_EXPERTS),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "mlp_bias": Only(False),
        "embedding_initializer_range": Unused(),
    },
    together=(
        latent_attention(kv_heads=16),
        Together((), _no_experts, lambda _: {}),
    ),
)
