"""Mamba-2 in transformers."""

from __future__ import annotations

import math
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, To, Together, Unused, refused
from lmzoo.hf.keys import EVERY, SWIGLU
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


def _heads(config: Config) -> dict[str, Any]:
    """Checks that the heads fill the inner width."""
    inner = config.value("hidden_size", 4096) * config.value("expand", 2)
    if config.value("num_heads", 128) * config.value("head_dim", 64) != inner:
        raise refused("num_heads", config.get("num_heads"), f"times head_dim must be expand * hidden_size = {inner}")
    return {}


MAMBA2 = Architecture(
    model_type="mamba2",
    classes=("Mamba2ForCausalLM",),
    family="mamba2",
    weights=WEIGHTS,
    keys={
        **EVERY,
        "vocab_size": To("vocab_size"),
        "hidden_size": To("d_model"),
        "num_hidden_layers": To("n_layers"),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "state_size": To("d_state", 128),
        "head_dim": To("head_dim", 64),
        "n_groups": To("n_groups", 8),
        "conv_kernel": To("d_conv", 4),
        "expand": To("expand", 2),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "hidden_act": SWIGLU,
        **{f"time_step_{word}": Unused() for word in ("rank", "min", "max", "floor")},  # for initial values
        "rescale_prenorm_residual": Unused(),
        "residual_in_fp32": Unused(),
        "chunk_size": Unused(),
        "time_step_limit": Only([0.0, math.inf], (None, [0.0, "Infinity"], [0.0, {"__float__": "Infinity"}])),
        "use_bias": Only(False),
        "use_conv_bias": Only(True),
    },
    together=(Together(("num_heads",), _heads),),
    prefix="backbone.",
)
