"""Weight names of Gated DeltaNet in transformers' OlmoHybridForCausalLM with linear-attention layers alone."""

from __future__ import annotations

from lmzoo.hf.layouts import Rows, Squeezed
from lmzoo.hf.names import frame, gated
from lmzoo.hf.weights import Weights

SIZES = {  # keys of the delta rule, and their settings
    "linear_num_value_heads": "delta_heads",
    "linear_num_key_heads": "delta_key_heads",
    "linear_key_head_dim": "key_dim",
    "linear_value_head_dim": "value_dim",
}
WEIGHTS: Weights = {
    **frame("model.embed_tokens", "model.norm"),
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
    **gated("blocks.{i}.1.inner.", "model.layers.{i}.mlp."),
}
