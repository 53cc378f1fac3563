"""Tiny random checkpoints of transformers, and the comparison of their logits with lmzoo's.

`CASES` has an entry for each model type that lmzoo loads: add one with a new architecture.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no downloads: the references are built from small configurations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

import lmzoo
from tests.backbones.against_transformers import perturb, random_tokens

logging.disable_progress_bar()
logging.set_verbosity_error()
V, T = 61, 24
NOISE = 30.0  # our difference from transformers, in units of its own rounding error


@dataclass(frozen=True)
class Case:
    """The keys of a tiny config; each of `variants` changes some of them and is compared too."""

    keys: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


LLAMA: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 0.02,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    """Returns the change of a config to other rotary positions."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **parameters}}


QWEN: dict[str, Mapping[str, Any]] = {
    "windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "layer types": {
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "tied": {"tie_word_embeddings": True},
}
LAYER_NORM: dict[str, Any] = {key: value for key, value in LLAMA.items() if key != "rms_norm_eps"}
MOE: dict[str, Any] = {**LLAMA, "num_experts": 6, "num_experts_per_tok": 2}
GEMMA: dict[str, Any] = {
    **{key: value for key, value in LLAMA.items() if key not in ("rope_parameters", "tie_word_embeddings")},
    "head_dim": 12,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
}
WINDOWED_MOE: dict[str, Any] = {
    **MOE,
    "moe_intermediate_size": 12,
    "head_dim": 12,
    "sliding_window": 5,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
}
GRANITE: dict[str, Any] = {
    **LLAMA,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 1.6,
}
GRANITE_MOE: dict[str, Any] = {"num_local_experts": 5, "num_experts_per_tok": 2}
MLA: dict[str, Any] = {
    **LLAMA,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 4,
    "first_k_dense_replace": 1,
    "q_lora_rank": 10,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_group": 4,
    "topk_group": 2,
}
MOE_OF_MLA = (
    *("moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"),
    *("first_k_dense_replace", "n_group", "topk_group"),
)
LATENT: dict[str, Any] = {key: value for key, value in MLA.items() if key not in MOE_OF_MLA}
V3_MOE: dict[str, Any] = {**LLAMA, **{key: value for key, value in MLA.items() if key in MOE_OF_MLA}}
MAMBA: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "state_size": 5,
    "conv_kernel": 3,
    "time_step_rank": 3,
    "layer_norm_epsilon": 0.02,
    "pad_token_id": None,
}
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
YARN: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.9,
        "original_max_position_embeddings": 8,
    }
}
GROWTH: dict[str, Any] = {"llama_4_scaling_beta": 0.9}
LIMITS: dict[str, Any] = {"time_step_limit": (0.4, 0.9)}  # of the step size
CASES: dict[str, Case] = {
    "gpt2": Case(
        {
            "vocab_size": V,
            "n_positions": 32,
            "n_embd": 24,
            "n_layer": 3,
            "n_head": 2,
            "n_inner": 40,
            "layer_norm_epsilon": 0.02,
        },
        {"untied": {"tie_word_embeddings": False, "n_inner": None}},
    ),
    "gpt_neo": Case(
        {
            "vocab_size": V,
            "max_position_embeddings": 32,
            "hidden_size": 24,
            "num_layers": 3,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1], [["local"], 1]],
            "window_size": 5,
            "intermediate_size": 40,
            "layer_norm_epsilon": 0.02,
        },
        {"untied": {"tie_word_embeddings": False, "intermediate_size": None, "activation_function": "gelu"}},
    ),
    "gpt_bigcode": Case(
        {
            "vocab_size": V,
            "n_positions": 32,
            "n_embd": 36,
            "n_layer": 3,
            "n_head": 3,
            "n_inner": 40,
            "layer_norm_epsilon": 0.02,
        },
        {
            "by head": {"multi_query": False, "tie_word_embeddings": False, "n_inner": None},
            "not divided": {"scale_attn_weights": False, "activation_function": "relu"},
        },
    ),
    "biogpt": Case(
        {
            "vocab_size": V,
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "max_position_embeddings": 32,
            "pad_token_id": None,
        },
        {"plain embeddings": {"scale_embedding": False, "tie_word_embeddings": False, "hidden_act": "relu"}},
    ),
    "xglm": Case(
        {
            "vocab_size": V,
            "d_model": 24,
            "num_layers": 3,
            "attention_heads": 2,
            "ffn_dim": 40,
            "max_position_embeddings": 16,
            "pad_token_id": None,
        },
        {"plain embeddings": {"scale_embedding": False, "tie_word_embeddings": False, "activation_function": "relu"}},
    ),
    "openai-gpt": Case(
        {"vocab_size": V, "n_positions": 32, "n_embd": 24, "n_layer": 3, "n_head": 2, "layer_norm_epsilon": 0.02},
        {"untied": {"tie_word_embeddings": False, "afn": "relu", "n_head": 3}},
    ),
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
    "opt": Case(
        {
            "vocab_size": V,
            "hidden_size": 24,
            "word_embed_proj_dim": 24,
            "num_hidden_layers": 3,
            "ffn_dim": 40,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "pad_token_id": None,
        },
        {"untied, gelu": {"tie_word_embeddings": False, "activation_function": "gelu"}},
    ),
    "bloom": Case(
        {"vocab_size": V, "hidden_size": 36, "n_layer": 3, "n_head": 6, "layer_norm_epsilon": 0.02},
        {"untied": {"tie_word_embeddings": False, "n_head": 4}},
    ),
    "mpt": Case(
        {"vocab_size": V, "d_model": 36, "n_layers": 3, "n_heads": 6, "max_seq_len": 32, "layer_norm_epsilon": 0.02},
        {"untied": {"tie_word_embeddings": False, "n_heads": 4}},
    ),
    "gpt_neox": Case(
        {
            **{key: value for key, value in LAYER_NORM.items() if key != "num_key_value_heads"},
            "layer_norm_eps": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        {
            "in sequence": {"use_parallel_residual": False, "hidden_act": "gelu_new"},
            "linear": rope("linear", factor=3.0, partial_rotary_factor=0.5),
            "tied": {"tie_word_embeddings": True, "rope_parameters": None, "num_attention_heads": 2},
        },
    ),
    "starcoder2": Case(
        {**LAYER_NORM, "norm_epsilon": 0.02, "sliding_window": 5},
        {"no biases": {**YARN, "use_bias": False, "sliding_window": None, "tie_word_embeddings": True}},
    ),
    "gptj": Case(
        {
            "vocab_size": V,
            "n_positions": 32,
            "n_embd": 36,
            "n_layer": 3,
            "n_head": 3,
            "rotary_dim": 6,
            "n_inner": 40,
            "layer_norm_epsilon": 0.02,
        },
        {"default width": {"n_inner": None, "rotary_dim": 4}},
    ),
    "phi": Case(
        {
            **LAYER_NORM,
            "layer_norm_eps": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25},
        },
        {
            "default rotation": {"rope_parameters": None, "num_key_value_heads": 4},
            "linear": rope("linear", factor=3.0, partial_rotary_factor=0.25),
            "head_dim": {"head_dim": 12, **rope("default", partial_rotary_factor=0.5)},
        },
    ),
    "cohere": Case(
        {**LAYER_NORM, "layer_norm_eps": 0.02, "logit_scale": 1.7, "tie_word_embeddings": True},
        {
            "norms, biases": {
                **YARN,
                "use_qk_norm": True,
                "attention_bias": True,
                "tie_word_embeddings": False,
                "head_dim": 12,
            }
        },
    ),
    "cohere2": Case(
        {
            **LAYER_NORM,
            "layer_norm_eps": 0.02,
            "logit_scale": 1.7,
            "tie_word_embeddings": True,
            "sliding_window": 5,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        {
            "pattern": {"layer_types": None, "sliding_window_pattern": 2, "num_hidden_layers": 3, **YARN},
            "biases": {"attention_bias": True, "tie_word_embeddings": False, "layer_types": 2 * ["full_attention"]},
            "head_dim": {"head_dim": 12},
        },
    ),
    "codegen": Case(
        {
            "vocab_size": V,
            "n_positions": 32,
            "n_embd": 48,
            "n_layer": 3,
            "n_head": 8,
            "rotary_dim": 4,
            "n_inner": 40,
            "layer_norm_epsilon": 0.02,
        },
        {"default width": {"n_inner": None, "n_head": 4, "rotary_dim": 6}},
    ),
    "falcon": Case(
        {
            **{
                key: value
                for key, value in LAYER_NORM.items()
                if key not in ("intermediate_size", "num_key_value_heads")
            },
            "ffn_hidden_size": 40,
            "layer_norm_epsilon": 0.02,
        },
        {
            "in sequence": {"parallel_attn": False, "bias": True, "multi_query": False, "ffn_hidden_size": None},
            "groups": {
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
                "num_ln_in_parallel_attn": 1,
                "tie_word_embeddings": True,
                "activation": "gelu_new",
                **YARN,
            },
        },
    ),
    "olmo": Case(LAYER_NORM, {"biases": {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 12, **YARN}}),
    "jais2": Case(
        {**LAYER_NORM, "layer_norm_eps": 0.02},
        {"no biases": {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "head_dim": 12}},
    ),
    "nemotron": Case(
        {
            **LAYER_NORM,
            "norm_eps": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        {
            "biases": {"attention_bias": True, "mlp_bias": True, "rope_parameters": None, "tie_word_embeddings": True},
            "linear": rope("linear", factor=3.0, partial_rotary_factor=0.25),
            "head_dim": {"head_dim": 12},  # as in Minitron 8B
        },
    ),
    "persimmon": Case(
        {
            **{key: value for key, value in LAYER_NORM.items() if key != "num_key_value_heads"},
            "layer_norm_eps": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        {
            "no norms": {"qk_layernorm": False, "tie_word_embeddings": True, "rope_parameters": None},
            "linear": rope("linear", factor=3.0, partial_rotary_factor=0.25),
        },
    ),
    "stablelm": Case(
        {
            **LAYER_NORM,
            "layer_norm_eps": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25},
        },
        {
            "parallel": {
                **rope("linear", factor=3.0, partial_rotary_factor=0.5),
                "use_parallel_residual": True,
                "use_qkv_bias": True,
                "qk_layernorm": True,
            }
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
            **{key: value for key, value in MOE.items() if key != "rope_parameters"},
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
        {key: value for key, value in MLA.items() if key != "first_k_dense_replace"},
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
        {key: value for key, value in V3_MOE.items() if key not in ("first_k_dense_replace", "intermediate_size")},
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
            **{key: value for key, value in WINDOWED_MOE.items() if key != "intermediate_size"},
            "shared_expert_intermediate_size": 12,
        },
        {"yarn": {**YARN, "norm_topk_prob": True, "tie_word_embeddings": True, "layer_types": 3 * ["full_attention"]}},
    ),
    "afmoe": Case(
        {**WINDOWED_MOE, "route_scale": 1.7, "mup_enabled": True, "layer_types": None, "num_shared_experts": 2}
        | {"global_attn_every_n_layers": 2},
        {"yarn": {**YARN, "mup_enabled": False, "num_dense_layers": 2, "tie_word_embeddings": True}},
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
            **{key: value for key, value in LLAMA.items() if key != "rope_parameters"},
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
    "mamba": Case(
        MAMBA,
        {
            "untied": {"tie_word_embeddings": False, "time_step_rank": "auto", "expand": 1},
            "biases": {"use_bias": True, "use_conv_bias": False},
        },
    ),
    "falcon_mamba": Case(
        {**MAMBA, "mixer_rms_eps": 0.03},
        {"untied": {"tie_word_embeddings": False}, "biases": {"use_bias": True, "use_conv_bias": False}},
    ),
    "recurrent_gemma": Case(
        {
            "vocab_size": V,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "lru_width": 24,
            "attention_window_size": 5,
            "conv1d_width": 3,
            "logits_soft_cap": 3.0,
            "rms_norm_eps": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
            "pad_token_id": None,
        },
        {
            "defaults": {
                "lru_width": None,
                "num_key_value_heads": None,
                "block_types": ["attention", "recurrent"],
                "intermediate_size": 41,
            }
        },
    ),
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
            **{key: value for key, value in QWEN3_5.items() if key != "intermediate_size"},
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
            **{key: value for key, value in MLA.items() if key not in KIMI_LACKS},
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
    "gpt_oss": Case(
        {
            **{key: value for key, value in LLAMA.items() if key != "rope_parameters"},
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
    "jamba": Case(
        {
            **{key: value for key, value in LLAMA.items() if key != "rope_parameters"},
            "hidden_size": 36,
            "num_hidden_layers": 4,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_dt_rank": 4,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        {
            "dense": {"num_experts": 1, "mamba_dt_rank": "auto", "mamba_expand": 1, "tie_word_embeddings": True},
            "all experts": {"expert_layer_period": 1, "expert_layer_offset": 0, "num_key_value_heads": 1},
            "biases": {"mamba_proj_bias": True, "mamba_conv_bias": False},
        },
    ),
    "granitemoe": Case({**GRANITE, **GRANITE_MOE}, {"tied": {"tie_word_embeddings": True, "attention_bias": True}}),
    "granitemoeshared": Case(
        {**GRANITE, **GRANITE_MOE, "shared_intermediate_size": 28}, {"none": {"shared_intermediate_size": 0}}
    ),
    "granitemoehybrid": Case(
        {
            **GRANITE,
            **GRANITE_MOE,
            "shared_intermediate_size": 28,
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "mamba_n_heads": 8,
            "mamba_n_groups": 2,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_chunk_size": 8,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        {
            "positions": {"position_embedding_type": "rope", "attention_bias": True, "num_experts_per_tok": 5},
            "dense": {"num_local_experts": 0, "mamba_expand": 1, "mamba_n_heads": 2, "tie_word_embeddings": True},
            "mamba": {"mamba_proj_bias": True, "mamba_conv_bias": False, **LIMITS},
        },
    ),
    "bamba": Case(
        {
            **{key: value for key, value in LLAMA.items() if key != "rope_parameters"},
            "num_hidden_layers": 2,
            "attn_layer_indices": [1],
            "mamba_n_heads": 8,
            "mamba_n_groups": 2,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_chunk_size": 8,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        {
            "tied": {"tie_word_embeddings": True, "mamba_expand": 1, "mamba_n_heads": 2, "num_key_value_heads": None},
            "mamba": {"mamba_proj_bias": True, "mamba_conv_bias": False, **LIMITS},
            "yarn": {**YARN, "num_attention_heads": 2},
            "linear": rope("linear", factor=3.0, partial_rotary_factor=0.25),
        },
    ),
    "mamba2": Case(
        {
            "vocab_size": V,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "state_size": 12,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "conv_kernel": 3,
            "expand": 2,
            "layer_norm_epsilon": 0.02,
            "chunk_size": 8,
            "pad_token_id": None,
        },
        {
            "tied": {"tie_word_embeddings": True, "n_groups": 4, "expand": 1, "num_heads": 4},
            "biases": {"use_bias": True, "use_conv_bias": False},
            "limits": LIMITS,
            "least step": {"time_step_limit": (0.8, float("inf"))},
        },
    ),
    "falcon_h1": Case(
        {
            **LLAMA,
            "num_hidden_layers": 2,
            "head_dim": 6,
            "mamba_d_ssm": 24,
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_chunk_size": 8,
            "embedding_multiplier": 3.0,
            "lm_head_multiplier": 0.7,
            "key_multiplier": 1.4,
            "attention_in_multiplier": 1.2,
            "attention_out_multiplier": 0.8,
            "ssm_in_multiplier": 0.9,
            "ssm_out_multiplier": 1.1,
            "ssm_multipliers": [0.9, 1.3, 0.7, 1.2, 0.8],
            "mlp_multipliers": [1.3, 0.6],
            "bos_token_id": None,
            "eos_token_id": None,
        },
        {
            "norm first": {"mamba_rms_norm": True, "mamba_d_ssm": None, "head_dim": 8},
            "limits": {"mamba_conv_bias": False, **LIMITS},
            "norm last, tied": {
                **YARN,
                "mamba_rms_norm": True,
                "mamba_norm_before_gate": False,
                "tie_word_embeddings": True,
                "ssm_multipliers": None,
                "mlp_multipliers": None,
            },
        },
    ),
    "nemotron_h": Case(
        {
            "vocab_size": V,
            "hidden_size": 32,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 5,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "layer_norm_epsilon": 0.02,
            "mamba_num_heads": 6,
            "mamba_head_dim": 7,
            "n_groups": 3,
            "ssm_state_size": 5,
            "conv_kernel": 3,
            "chunk_size": 8,
            "time_step_min": 0.5,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "moe_shared_expert_intermediate_size": 24,
            "rms_norm_eps": 1e-5,  # as on the hub, without effect
            "attention_head_dim": 5,
            "pad_token_id": None,
            "eos_token_id": None,
        },
        {
            "letters": {"layers_block_type": None, "hybrid_override_pattern": "M-*-M"},
            "biases": {"use_bias": True, "use_conv_bias": False},
            "groups": {
                "n_routed_experts": 8,
                "num_experts_per_tok": 4,
                "routed_scaling_factor": 1.7,
                "n_group": 4,
                "topk_group": 2,
                "norm_topk_prob": False,
            },
        },
    ),
    "zamba2": Case(
        {
            "vocab_size": V,
            "hidden_size": 24,
            "num_hidden_layers": 5,
            "layers_block_type": ["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid"],
            "num_mem_blocks": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "rms_norm_eps": 0.02,
            "adapter_rank": 3,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_ngroups": 2,
            "n_mamba_heads": 6,
            "time_step_min": 0.5,
            "chunk_size": 8,
            "pad_token_id": None,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        {
            "adapted, rotated": {
                "use_shared_attention_adapter": True,
                "num_key_value_heads": 4,
                "use_mem_rope": True,
                "num_mem_blocks": 1,
                "intermediate_size": None,
                **rope("default"),
            },
            "yarn": {**YARN, "use_mem_rope": True, "hidden_size": 36, "n_mamba_heads": 4},
        },
    ),
    "xlstm": Case(
        {
            "vocab_size": V,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 2,
            "qk_dim_factor": 0.7,
            "v_dim_factor": 0.82,
            "ffn_proj_factor": 1.5,
            "ffn_round_up_to_multiple_of": 5,
            "norm_eps": 0.02,
            "gate_soft_cap": 1.5,
            "output_logit_soft_cap": 2.0,
            "pad_token_id": None,
        },
        {"defaults": {"ffn_round_up_to_multiple_of": 64, "gate_soft_cap": 15.0, "num_heads": 1}},
    ),
}


def reference(model_type: str, **keys: Any) -> PreTrainedModel:
    """Returns a perturbed model of transformers with these keys in its config."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **deepcopy(keys))  # transformers adds keys to rope_parameters
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}  # the others take no float64
    model = AutoModelForCausalLM.from_config(config, **options)
    perturb(model)
    for name, bias in (*model.named_buffers(), *model.named_parameters()):
        if name.endswith(("e_score_correction_bias", "expert_bias")):  # small, so that every expert is reached
            bias.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    return model


def case_keys(model_type: str, variant: str = "") -> dict[str, Any]:
    """Returns the keys of a case, changed by one of its variants."""
    case = CASES[model_type]
    return {**case.keys, **(case.variants[variant] if variant else {})}


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Saves a model of transformers, and returns the folder."""
    model.save_pretrained(folder, **options)
    return folder


@torch.no_grad()
def logits_of(model: PreTrainedModel, idx_BT: Tensor) -> Tensor:
    """Returns the logits of a full forward pass with explicit positions."""
    known = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
    if "position_ids" in known:
        options["position_ids"] = torch.arange(idx_BT.shape[1])[None].expand(len(idx_BT), -1)
    return model(idx_BT, **options).logits


def exact_logits(model: PreTrainedModel, idx_BT: Tensor) -> Tensor:
    """Returns the logits in float64. XGLM makes a mask of torch's default dtype, and fails if it is another one."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if model.config.model_type == "xglm" else default)
    try:
        return logits_of(model.double(), idx_BT)
    finally:
        torch.set_default_dtype(default)
        model.float()


@torch.no_grad()
def assert_same_logits(ours: lmzoo.LanguageModel, theirs: PreTrainedModel, length: int = T) -> None:
    """Compares logits in float32, in units of the rounding error of the reference: its difference from float64."""
    idx_BT = random_tokens(ours.config.vocab_size, 2, length)
    expected = logits_of(theirs, idx_BT)
    exact = exact_logits(theirs, idx_BT)
    assert expected.std() > 0.3, "the weights must make the logits differ"
    noise = (expected - exact).abs().max().item() + 1e-7 * exact.abs().max().item()
    difference = (ours(idx_BT).logits - exact).abs().max().item()
    assert difference < NOISE * noise, f"the logits differ by {difference / noise:.3g} times the rounding error"
