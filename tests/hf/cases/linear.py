"""Cases of hybrids of attention with linear attention, the delta rule or short convolutions."""

from __future__ import annotations

from typing import Any

from tests.hf.cases.case import LAYER_NORM, LLAMA, MLA, YARN, Case, rope, without

DELTA_SIZES = (
    *("linear_num_key_heads", "linear_num_value_heads"),
    *("linear_key_head_dim", "linear_value_head_dim"),
)
QWEN3_5: dict[str, Any] = {
    **LLAMA,
    "num_hidden_layers": 2,
    "head_dim": 12,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 3,
}
KIMI_LACKS = ("first_k_dense_replace", "n_routed_experts", "rope_parameters")  # keys of DeepSeek
CASES: dict[str, Case] = {
    "olmo_hybrid": Case(
        {
            **LLAMA,
            "rope_parameters": {"rope_type": "default", "rope_theta": None},  # as released: no positions
            "layer_types": ["linear_attention", "full_attention"],
            "num_hidden_layers": 2,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 10,
            "linear_conv_kernel_dim": 3,
            "eos_token_id": None,
        },
        {
            "positions": {**rope("default"), "linear_allow_neg_eigval": False, "tie_word_embeddings": True},
            "defaults": dict.fromkeys(("layer_types", "rope_parameters", "num_key_value_heads", *DELTA_SIZES)),
        },
    ),
    "qwen3_5_text": Case(
        QWEN3_5,
        {
            "interval": {"layer_types": None, "full_attention_interval": 2},
            "sections": rope("default", partial_rotary_factor=0.5, mrope_section=[1, 1, 1], mrope_interleaved=True),
        },
    ),
    "qwen3_5_moe_text": Case(
        {
            **without(QWEN3_5, "intermediate_size"),
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
        },
        {"tied": {"tie_word_embeddings": True, "num_experts_per_tok": 3, "linear_num_key_heads": 4}},
    ),
    "qwen3_next": Case(
        {
            **QWEN3_5,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
        },
        {
            "dense layers": {"mlp_only_layers": [0], "norm_topk_prob": False, "tie_word_embeddings": True},
            "dense": {"num_experts": 0, "linear_num_key_heads": 4},
        },
    ),
    "lfm2": Case(
        {
            **LAYER_NORM,
            "norm_eps": 0.02,
            "conv_L_cache": 4,
            "block_multiple_of": 7,
            "block_ffn_dim_multiplier": 1.3,
            "layer_types": ["conv", "full_attention", "conv"],
        },
        {
            "exact width": {"block_auto_adjust_ff_dim": False, "tie_word_embeddings": True},
            "indices": {"layer_types": None, "full_attn_idxs": [2]},
        },
    ),
    "lfm2_moe": Case(
        {
            **LAYER_NORM,
            "norm_eps": 0.02,
            "conv_L_cache": 4,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_dense_layers": 1,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 12,
            "routed_scaling_factor": 1.7,
        },
        {
            "no bias": {"use_expert_bias": False, "norm_topk_prob": False, "tie_word_embeddings": True},
            "one dense": {**YARN, "num_dense_layers": 3, "layer_types": ["full_attention", "conv", "conv"]},
        },
    ),
    "minimax": Case(
        {
            **LLAMA,
            "head_dim": 6,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "num_local_experts": 5,
            "block_size": 8,
            "full_attn_alpha_factor": 1.3,
            "full_attn_beta_factor": 0.8,
            "linear_attn_alpha_factor": 1.6,
            "linear_attn_beta_factor": 1.2,
            "mlp_alpha_factor": 0.7,
            "mlp_beta_factor": 0.9,
        },
        {"defaults": {"layer_types": None, "head_dim": None, "tie_word_embeddings": True, "num_experts_per_tok": 3}},
    ),
    "kimi_linear": Case(
        {
            **without(MLA, *KIMI_LACKS),
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "num_local_experts": 8,
            "linear_head_dim": 6,
            "linear_num_heads": 3,
            "linear_conv_kernel_dim": 3,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        {
            "lists": {
                "layer_types": None,
                "linear_attn_config": {
                    "head_dim": 4,
                    "num_heads": 5,
                    "short_conv_kernel_size": 2,
                    "full_attn_layers": [1],
                    "kda_layers": [2],
                },
                "mlp_layer_types": None,
                "q_lora_rank": None,
                "norm_topk_prob": False,
            },
        },
    ),
}
