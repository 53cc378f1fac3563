"""Cases of GPT-2 and its relatives, with keys of their own and mostly without rotary positions."""

from __future__ import annotations

from tests.hf.cases.case import Case, V

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
}
