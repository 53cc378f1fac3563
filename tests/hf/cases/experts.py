"""Cases of models with experts whose mixers are all attention."""

from __future__ import annotations

from typing import Any

from tests.hf.cases.case import GRANITE, GRANITE_MOE, LLAMA, MLA, MOE_OF_MLA, YARN, Case, rope, without

MOE: dict[str, Any] = {**LLAMA, "num_experts": 6, "num_experts_per_tok": 2}
WINDOWED_MOE: dict[str, Any] = {
    **MOE,
    "moe_intermediate_size": 12,
    "head_dim": 12,
    "sliding_window": 5,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
}
V3_MOE: dict[str, Any] = {**LLAMA, **{key: value for key, value in MLA.items() if key in MOE_OF_MLA}}
CASES: dict[str, Case] = {
    "mixtral": Case(
        {**LLAMA, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 5},
        {"head_dim": {**YARN, "head_dim": 12, "sliding_window": None, "num_experts_per_tok": 3}},
    ),
    "qwen2_moe": Case(
        {**MOE, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 12},
        {
            "windows": {
                "use_sliding_window": True,
                "sliding_window": 5,
                "max_window_layers": 2,
                "qkv_bias": False,
                "norm_topk_prob": True,
            },
            "layer types": {
                "use_sliding_window": True,
                "sliding_window": 5,
                "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
                "tie_word_embeddings": True,
            },
        },
    ),
    "qwen3_moe": Case(
        {**MOE, "moe_intermediate_size": 20, "head_dim": 12},
        {
            "normalized": {"norm_topk_prob": True, "use_sliding_window": True, "sliding_window": 5},
            "dynamic, biases": {**rope("dynamic", factor=3.0), "attention_bias": True},
        },
    ),
    "mellum": Case(
        {
            **without(MOE, "rope_parameters"),
            "moe_intermediate_size": 20,
            "head_dim": 12,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "rope_theta": 400.0, "factor": 4.0}
                | {"original_max_position_embeddings": 8},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
        {
            "no windows": {
                "layer_types": None,
                "rope_parameters": None,
                "norm_topk_prob": False,
                "attention_bias": True,
                "tie_word_embeddings": True,
            }
        },
    ),
    "flex_olmo": Case(MOE, {"normalized": {**YARN, "norm_topk_prob": True, "attention_bias": True}}),
    "olmoe": Case(MOE, {"normalized": {**YARN, "norm_topk_prob": True, "tie_word_embeddings": True}}),
    "deepseek_v2": Case(
        MLA,
        {
            "groups": {"topk_method": "group_limited_greedy", "routed_scaling_factor": 3.0},
            "lite, yarn": {**YARN, "q_lora_rank": None, "num_experts_per_tok": 3},
        },
    ),
    "deepseek_v3": Case(
        MLA,
        {
            "halves": {"rope_interleave": False, "norm_topk_prob": False},
            "lite, halves": {"rope_interleave": False, "q_lora_rank": None},
            "other groups": {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 3},
            "lite, yarn": {**YARN, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "tie_word_embeddings": True},
        },
    ),
    "glm4_moe_lite": Case(
        without(MLA, "first_k_dense_replace"),
        {"halves": {"rope_interleave": False, "mlp_layer_types": ["dense", "dense", "sparse"], **YARN}},
    ),
    "glm4_moe": Case(
        {**V3_MOE, "head_dim": 12, "use_qk_norm": True, **rope("default", partial_rotary_factor=0.5)},
        {"no groups": {"n_group": 1, "topk_group": 1, "use_qk_norm": False, "attention_bias": True}},
    ),
    "dots1": Case({**V3_MOE, "head_dim": 12}, {"biases": {"attention_bias": True, "norm_topk_prob": True, **YARN}}),
    "ernie4_5_moe": Case(
        {
            **LLAMA,
            "moe_intermediate_size": 12,
            "moe_num_experts": 5,
            "moe_k": 2,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
        },
        {"no shared": {"moe_num_shared_experts": 0, "moe_k": 3, "moe_layer_start_index": 0, **YARN}},
    ),
    "solar_open": Case(
        without(V3_MOE, "first_k_dense_replace", "intermediate_size"),
        {"biases": {"attention_bias": True, "head_dim": 12, "norm_topk_prob": False}},
    ),
    "minimax_m2": Case(
        {
            **LLAMA,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "head_dim": 12,
            **rope("default", partial_rotary_factor=0.5),
        },
        {"whole heads": {**rope("linear", factor=3.0), "tie_word_embeddings": True, "num_experts_per_tok": 3}},
    ),
    "hy_v3": Case(
        {
            **MOE,
            "head_dim": 12,
            "moe_intermediate_size": 12,
            "num_shared_experts": 2,
            "router_scaling_factor": 1.7,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
        {"biases": {"attention_bias": True, "tie_word_embeddings": True, "mlp_layer_types": None, **YARN}},
    ),
    "hunyuan_v1_moe": Case(
        {**LLAMA, "num_experts": 5, "moe_topk": 2, "head_dim": 12},
        {
            "list": {"moe_topk": [3, 3, 3], "attention_bias": True, "tie_word_embeddings": True, "head_dim": 8},
            "alpha": rope("dynamic", factor=1.0, alpha=50.0),
        },
    ),
    "exaone_moe": Case(
        {
            **LLAMA,
            "head_dim": 12,
            "sliding_window": 5,
            "sliding_window_pattern": 2,
            "moe_intermediate_size": 12,
            "num_experts": 8,
            "num_experts_per_tok": 4,
            "num_shared_experts": 2,
            "n_group": 4,
            "topk_group": 2,
        },
        {
            "no windows": {"layer_types": 3 * ["full_attention"], "norm_topk_prob": False},
            "kinds, yarn": {
                **YARN,
                "layer_types": ["full_attention", "sliding_attention", "full_attention"],
                "mlp_layer_types": ["dense", "dense", "sparse"],
                "routed_scaling_factor": 1.3,
                "tie_word_embeddings": True,
            },
        },
    ),
    "flint": Case(
        {**WINDOWED_MOE, "mlp_only_layers": [0], "shared_expert_intermediate_size": 24},
        {
            "biases, yarn": {
                **YARN,
                "attention_bias": True,
                "mlp_only_layers": [],
                "norm_topk_prob": False,
                "tie_word_embeddings": True,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            }
        },
    ),
    "kolibri1": Case(
        {
            **without(WINDOWED_MOE, "intermediate_size"),
            "shared_expert_intermediate_size": 12,
        },
        {"yarn": {**YARN, "norm_topk_prob": True, "tie_word_embeddings": True, "layer_types": 3 * ["full_attention"]}},
    ),
    "afmoe": Case(
        {**WINDOWED_MOE, "route_scale": 1.7, "mup_enabled": True, "layer_types": None, "num_shared_experts": 2}
        | {"global_attn_every_n_layers": 2},
        {"yarn": {**YARN, "mup_enabled": False, "num_dense_layers": 2, "tie_word_embeddings": True}},
    ),
    "gpt_oss": Case(
        {
            **without(LLAMA, "rope_parameters"),
            "head_dim": 10,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": 5,
            "swiglu_limit": 0.4,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 100.0,
                "factor": 4.0,
                "beta_fast": 3.0,
                "beta_slow": 0.5,
                "truncate": False,
                "original_max_position_embeddings": 8,
            },
        },
        {
            "layer types": {
                "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
                "attention_bias": False,
                "tie_word_embeddings": True,
                "num_experts_per_tok": 5,
            },
            "defaults": {"rope_parameters": None, "swiglu_limit": 7.0},
        },
    ),
    "granitemoe": Case({**GRANITE, **GRANITE_MOE}, {"tied": {"tie_word_embeddings": True, "attention_bias": True}}),
    "granitemoeshared": Case(
        {**GRANITE, **GRANITE_MOE, "shared_intermediate_size": 28}, {"none": {"shared_intermediate_size": 0}}
    ),
}
