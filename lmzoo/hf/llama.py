"""Weight names of Llama and its relatives in transformers: WEIGHTS for Llama, Mistral and SmolLM3, QWEN2, QWEN3."""

from __future__ import annotations

from lmzoo.hf.weights import Head, Rows, Weights

WEIGHTS: Weights = {
    "tokens.weight": "model.embed_tokens.weight",
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    "blocks.{i}.0.inner.qkv.weight": Rows(
        (
            "model.layers.{i}.self_attn.q_proj.weight",
            "model.layers.{i}.self_attn.k_proj.weight",
            "model.layers.{i}.self_attn.v_proj.weight",
        ),
        shares=("n_heads", "n_kv_heads", "n_kv_heads"),
    ),
    "blocks.{i}.0.inner.out.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.inner.up.weight": Rows(
        ("model.layers.{i}.mlp.gate_proj.weight", "model.layers.{i}.mlp.up_proj.weight"),
    ),
    "blocks.{i}.1.inner.down.weight": "model.layers.{i}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": Head("lm_head.weight", tokens="model.embed_tokens.weight"),
}

QWEN2: Weights = {
    **WEIGHTS,
    "blocks.{i}.0.inner.qkv.bias": Rows(
        (
            "model.layers.{i}.self_attn.q_proj.bias",
            "model.layers.{i}.self_attn.k_proj.bias",
            "model.layers.{i}.self_attn.v_proj.bias",
        ),
        shares=("n_heads", "n_kv_heads", "n_kv_heads"),
    ),
}
QWEN3: Weights = {
    **WEIGHTS,
    "blocks.{i}.0.inner.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}
ALL_BIASES: Weights = {**QWEN2, "blocks.{i}.0.inner.out.bias": "model.layers.{i}.self_attn.o_proj.bias"}
