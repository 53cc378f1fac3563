"""Weight names of OLMo 2 in transformers' Olmo2ForCausalLM."""

from __future__ import annotations

from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.weights import Weights

WEIGHTS: Weights = {
    **{name: source for name, source in LLAMA.items() if not name.endswith(".before.weight")},
    "blocks.{i}.0.inner.q_norm.norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}
