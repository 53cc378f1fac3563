"""Weight names of Gated DeltaNet in transformers' OlmoHybridForCausalLM with linear-attention layers alone."""

from __future__ import annotations

from lmzoo.hf.layouts import Rows, Squeezed, gate_and_up
from lmzoo.hf.weights import Head, Weights

WEIGHTS: Weights = {
    "tokens.weight": "model.embed_tokens.weight",
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    "blocks.{i}.0.inner.qkv.weight": Rows(
        (
            "model.layers.{i}.linear_attn.q_proj.weight",
            "model.layers.{i}.linear_attn.k_proj.weight",
            "model.layers.{i}.linear_attn.v_proj.weight",
        ),
        shares=("key_dim", "key_dim", "value_dim"),
    ),
    "blocks.{i}.0.inner.conv.weight": Squeezed("model.layers.{i}.linear_attn.conv1d.weight", axis=1),
    "blocks.{i}.0.inner.beta.weight": "model.layers.{i}.linear_attn.b_proj.weight",
    "blocks.{i}.0.inner.decay.weight": "model.layers.{i}.linear_attn.a_proj.weight",
    "blocks.{i}.0.inner.A_log": "model.layers.{i}.linear_attn.A_log",
    "blocks.{i}.0.inner.dt_bias": "model.layers.{i}.linear_attn.dt_bias",
    "blocks.{i}.0.inner.gate.weight": "model.layers.{i}.linear_attn.g_proj.weight",
    "blocks.{i}.0.inner.norm.weight": "model.layers.{i}.linear_attn.o_norm.weight",
    "blocks.{i}.0.inner.out.weight": "model.layers.{i}.linear_attn.o_proj.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.inner.up.weight": gate_and_up("model.layers.{i}.mlp."),
    "blocks.{i}.1.inner.down.weight": "model.layers.{i}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": Head("lm_head.weight", tokens="model.embed_tokens.weight"),
}
