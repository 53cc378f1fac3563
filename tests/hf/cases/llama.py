"""Cases of Llama and its relatives with one feed-forward layer in each block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.hf.cases.case import GRANITE, LLAMA, MLA, MOE_OF_MLA, YARN, Case, rope, without

GEMMA: dict[str, Any] = {
    **without(LLAMA, "rope_parameters", "tie_word_embeddings"),
    "head_dim": 12,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
}
LATENT: dict[str, Any] = without(MLA, *MOE_OF_MLA)
QWEN: dict[str, Mapping[str, Any]] = {
    "windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "layer types": {
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "tied": {"tie_word_embeddings": True},
}
GROWTH: dict[str, Any] = {"llama_4_scaling_beta": 0.9}
CASES: dict[str, Case] = {
    "llama": Case(
        LLAMA,
        {
            "biases, head_dim": {"attention_bias": True, "mlp_bias": True, "head_dim": 6},
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 1},
            "linear": rope("linear", factor=3.0),
            "llama3": rope(
                "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=3.0, original_max_position_embeddings=12
            ),
            "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8, beta_fast=20.0, beta_slow=0.5),
            "yarn, attention": rope("yarn", factor=4.0, attention_factor=1.7, truncate=False),
            "dynamic": rope("dynamic", factor=3.0),
            "yarn, mscale": rope("yarn", factor=4.0, mscale=0.7, mscale_all_dim=0.4),
        },
    ),
    "granite": Case(
        GRANITE,
        {"tied, biases, yarn": {**YARN, "tie_word_embeddings": True, "attention_bias": True}},
    ),
    "hyperclovax": Case(
        {**GRANITE, "logits_scaling": 0.6, "use_post_norm": True},
        {"defaults": {"attention_multiplier": None, "use_post_norm": False, "tie_word_embeddings": True, **YARN}},
    ),
    "minicpm3": Case(
        {**LATENT, "scale_emb": 3.0, "scale_depth": 1.1, "dim_model_base": 20},
        {
            "direct, yarn": {**YARN, "q_lora_rank": None, "tie_word_embeddings": True, "v_head_dim": None},
            "no factors": {"scale_depth": None, "dim_model_base": None, **rope("linear", factor=3.0)},
        },
    ),
    "ministral": Case(
        {**LLAMA, "sliding_window": 5, "head_dim": 8},
        {"kinds": {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "head_dim": 12}},
    ),
    "ministral3": Case(
        {**LLAMA, "head_dim": 12, **rope("yarn", factor=4.0, original_max_position_embeddings=4, **GROWTH)},
        {
            "window": {
                "sliding_window": 5,
                "tie_word_embeddings": True,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 100.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 3.0,
                    "original_max_position_embeddings": 6,
                    **GROWTH,
                },
            }
        },
    ),
    "apertus": Case(
        {**LLAMA, "rope_parameters": None},
        {"biases": {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 12, **rope("default")}},
    ),
    "seed_oss": Case({**LLAMA, "head_dim": 12}, {"all biases": {"attention_out_bias": True}}),
    "helium": Case({**LLAMA, "head_dim": 8}, {"biases": {"attention_bias": True, "mlp_bias": True, **YARN}}),
    "glm": Case(
        {**LLAMA, "head_dim": 12, **rope("default", partial_rotary_factor=0.5)},
        {"no biases": {"attention_bias": False, "tie_word_embeddings": True, **rope("linear", factor=3.0)}},
    ),
    "glm4": Case(
        {**LLAMA, "head_dim": 12, **rope("default", partial_rotary_factor=0.5)},
        {"no biases": {"attention_bias": False, "tie_word_embeddings": True}},
    ),
    "ernie4_5": Case(
        {**LLAMA, "head_dim": 12}, {"biases": {"use_bias": True, "tie_word_embeddings": True, "head_dim": None}}
    ),
    "internlm3": Case(
        {**LLAMA, "head_dim": 12}, {"biases": {"qkv_bias": True, "bias": True, **rope("dynamic", factor=3.0)}}
    ),
    "arcee": Case(
        LLAMA, {"biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 12, "tie_word_embeddings": True}}
    ),
    "cwm": Case(
        {**LLAMA, "num_hidden_layers": 2, "sliding_window": 5, "head_dim": 12},
        {
            "kinds": {
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": None,
                "mlp_bias": True,
            }
        },
    ),
    "iquestcoder": Case({**LLAMA, "head_dim": 12}, {"biases": {"attention_bias": True, "mlp_bias": True}}),
    "hunyuan_v1_dense": Case(
        {**LLAMA, "head_dim": 12},
        {
            "alpha": rope("dynamic", factor=1.0, alpha=50.0),
            "biases, yarn": {**YARN, "attention_bias": True, "tie_word_embeddings": True},
        },
    ),
    "nanochat": Case(
        {**LLAMA, "final_logit_softcapping": 2.0},
        {
            "no cap, biases": {
                **YARN,
                "final_logit_softcapping": None,
                "attention_bias": True,
                "tie_word_embeddings": True,
                "head_dim": 12,
            }
        },
    ),
    "smollm3": Case(
        {**LLAMA, "no_rope_layer_interval": 2},
        {
            "list": {"no_rope_layers": [0, 1, 1], "attention_bias": True, "mlp_bias": True},
            "windows": {
                "no_rope_layers": [1, 0, 1],
                "layer_types": ["sliding_attention", "full_attention", "full_attention"],
                "use_sliding_window": True,
                "sliding_window": 5,
            },
            "windows without positions": {"use_sliding_window": True, "sliding_window": 5},
        },
    ),
    "phi3": Case(
        {**LLAMA, "sliding_window": 5},
        {
            "partial": {**rope("default", partial_rotary_factor=0.5), "tie_word_embeddings": True},
            "longrope": {
                **rope("longrope", short_factor=[1.0, 1.3, 2.0, 2.5], long_factor=[1.5, 2, 3.0, 6.0]),
                "original_max_position_embeddings": 10,
            },
            "longrope, factor": {
                **rope("longrope", partial_rotary_factor=0.5, short_factor=[1.0, 2.0], long_factor=[2.0, 6.0]),
                "original_max_position_embeddings": 4,
            },
        },
    ),
    "diffllama": Case(
        LLAMA, {"tied": {"tie_word_embeddings": True, "num_key_value_heads": 4}, "linear": rope("linear", factor=3.0)}
    ),
    "gemma": Case({**LLAMA, "head_dim": 12}, {"tied, yarn": {"tie_word_embeddings": True, **YARN}}),
    "vaultgemma": Case(
        {**GEMMA, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
        {
            "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False},
            "yarn": YARN,
        },
    ),
    "gemma2": Case(
        {**GEMMA, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
        {
            "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False},
            "yarn": YARN,
        },
    ),
    "gemma3_text": Case(
        {
            **GEMMA,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 400.0, "factor": 3.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
        {"cap": {"final_logit_softcapping": 2.0, "tie_word_embeddings": False}},
    ),
    "youtu": Case(
        LATENT,
        {"lite, tied": {"q_lora_rank": None, "tie_word_embeddings": True}},
    ),
    "mistral": Case({**LLAMA, "sliding_window": 5}, {"no window": {"sliding_window": None, "head_dim": 12}}),
    "qwen2": Case(LLAMA, QWEN),
    "qwen3": Case({**LLAMA, "head_dim": 12}, {**QWEN, "biases": {"attention_bias": True}}),
    "olmo2": Case(
        LLAMA,
        {"tied": {**YARN, "tie_word_embeddings": True, "num_key_value_heads": 4}, "head_dim": {"head_dim": 12}},
    ),
    "olmo3": Case(
        {
            **without(LLAMA, "rope_parameters"),
            "num_hidden_layers": 4,
            "sliding_window": 5,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        {
            "kinds": {
                "layer_types": ["full_attention", "sliding_attention"],
                "num_hidden_layers": 2,
                "rope_parameters": None,
                "tie_word_embeddings": True,
            }
        },
    ),
    "exaone4": Case(
        {**LLAMA, "num_hidden_layers": 2, "sliding_window": 5, "sliding_window_pattern": 2},
        {
            "no windows": {"sliding_window": None, "tie_word_embeddings": True, "layer_types": 2 * ["full_attention"]},
            "kinds, yarn": {**YARN, "layer_types": ["full_attention", "sliding_attention"], "head_dim": 12},
        },
    ),
}
