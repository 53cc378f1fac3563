"""Cases of Llama's relatives with layer normalization."""

from __future__ import annotations

from tests.hf.cases.case import LAYER_NORM, YARN, Case, rope, without

CASES: dict[str, Case] = {
    "gpt_neox": Case(
        {
            **without(LAYER_NORM, "num_key_value_heads"),
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
    "falcon": Case(
        {
            **without(LAYER_NORM, "intermediate_size", "num_key_value_heads"),
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
            **without(LAYER_NORM, "num_key_value_heads"),
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
}
