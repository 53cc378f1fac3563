"""Weight names of Mamba-2 in transformers' Mamba2ForCausalLM."""

from __future__ import annotations

from lmzoo.hf.weights import Head, Squeezed, Weights

WEIGHTS: Weights = {
    "tokens.weight": "backbone.embeddings.weight",
    "blocks.{i}.before.weight": "backbone.layers.{i}.norm.weight",
    "blocks.{i}.inner.in_proj.weight": "backbone.layers.{i}.mixer.in_proj.weight",
    "blocks.{i}.inner.conv.weight": Squeezed("backbone.layers.{i}.mixer.conv1d.weight", axis=1),
    "blocks.{i}.inner.conv.bias": "backbone.layers.{i}.mixer.conv1d.bias",
    "blocks.{i}.inner.dt_bias": "backbone.layers.{i}.mixer.dt_bias",
    "blocks.{i}.inner.A_log": "backbone.layers.{i}.mixer.A_log",
    "blocks.{i}.inner.D": "backbone.layers.{i}.mixer.D",
    "blocks.{i}.inner.norm_weight": "backbone.layers.{i}.mixer.norm.weight",
    "blocks.{i}.inner.out_proj.weight": "backbone.layers.{i}.mixer.out_proj.weight",
    "norm.weight": "backbone.norm_f.weight",
    "head.weight": Head("lm_head.weight", tokens="backbone.embeddings.weight"),
}
