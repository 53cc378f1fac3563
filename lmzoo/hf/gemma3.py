"""Weight names of Gemma in transformers' Gemma3ForCausalLM (text) and Gemma2ForCausalLM (without the q/k norms)."""

from __future__ import annotations

from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.weights import Weights

GEMMA2: Weights = {
    **LLAMA,
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.pre_feedforward_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}
WEIGHTS: Weights = {
    **GEMMA2,
    "blocks.{i}.0.inner.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}
