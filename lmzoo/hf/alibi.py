"""Weight names of ALiBi with `embedding_norm` in transformers' BloomForCausalLM."""

from __future__ import annotations

from lmzoo.hf.weights import Head, PerHead, Weights

WEIGHTS: Weights = {
    "tokens.weight": "transformer.word_embeddings.weight",
    "embedding_norm.weight": "transformer.word_embeddings_layernorm.weight",
    "embedding_norm.bias": "transformer.word_embeddings_layernorm.bias",
    "blocks.{i}.0.before.weight": "transformer.h.{i}.input_layernorm.weight",
    "blocks.{i}.0.before.bias": "transformer.h.{i}.input_layernorm.bias",
    "blocks.{i}.0.inner.qkv.weight": PerHead("transformer.h.{i}.self_attention.query_key_value.weight"),
    "blocks.{i}.0.inner.qkv.bias": PerHead("transformer.h.{i}.self_attention.query_key_value.bias"),
    "blocks.{i}.0.inner.out.weight": "transformer.h.{i}.self_attention.dense.weight",
    "blocks.{i}.0.inner.out.bias": "transformer.h.{i}.self_attention.dense.bias",
    "blocks.{i}.1.before.weight": "transformer.h.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.before.bias": "transformer.h.{i}.post_attention_layernorm.bias",
    "blocks.{i}.1.inner.up.weight": "transformer.h.{i}.mlp.dense_h_to_4h.weight",
    "blocks.{i}.1.inner.up.bias": "transformer.h.{i}.mlp.dense_h_to_4h.bias",
    "blocks.{i}.1.inner.down.weight": "transformer.h.{i}.mlp.dense_4h_to_h.weight",
    "blocks.{i}.1.inner.down.bias": "transformer.h.{i}.mlp.dense_4h_to_h.bias",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": Head("lm_head.weight", tokens="transformer.word_embeddings.weight"),
}
