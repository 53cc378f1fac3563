"""Weight names of GPT-NeoX and Pythia in transformers' GPTNeoXForCausalLM."""

from __future__ import annotations

from lmzoo.hf.weights import Head, PerHead, Weights

WEIGHTS: Weights = {
    "tokens.weight": "gpt_neox.embed_in.weight",
    "blocks.{i}.0.before.weight": "gpt_neox.layers.{i}.input_layernorm.weight",
    "blocks.{i}.0.before.bias": "gpt_neox.layers.{i}.input_layernorm.bias",
    "blocks.{i}.0.inner.qkv.weight": PerHead("gpt_neox.layers.{i}.attention.query_key_value.weight"),
    "blocks.{i}.0.inner.qkv.bias": PerHead("gpt_neox.layers.{i}.attention.query_key_value.bias"),
    "blocks.{i}.0.inner.out.weight": "gpt_neox.layers.{i}.attention.dense.weight",
    "blocks.{i}.0.inner.out.bias": "gpt_neox.layers.{i}.attention.dense.bias",
    "blocks.{i}.1.before.weight": "gpt_neox.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.before.bias": "gpt_neox.layers.{i}.post_attention_layernorm.bias",
    "blocks.{i}.1.inner.up.weight": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight",
    "blocks.{i}.1.inner.up.bias": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias",
    "blocks.{i}.1.inner.down.weight": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight",
    "blocks.{i}.1.inner.down.bias": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.bias",
    "norm.weight": "gpt_neox.final_layer_norm.weight",
    "norm.bias": "gpt_neox.final_layer_norm.bias",
    "head.weight": Head("lm_head.weight", tokens="gpt_neox.embed_in.weight"),
}
