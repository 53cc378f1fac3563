"""Mamba and Falcon Mamba in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, To, Together, Unused, refused
from lmzoo.hf.keys import EVERY, SWIGLU
from lmzoo.hf.weights import Head, Squeezed, Weights

WEIGHTS: Weights = {
    "tokens.weight": "backbone.embeddings.weight",
    "blocks.{i}.before.weight": "backbone.layers.{i}.norm.weight",
    "blocks.{i}.inner.in_proj.weight": "backbone.layers.{i}.mixer.in_proj.weight",
    "blocks.{i}.inner.conv.weight": Squeezed("backbone.layers.{i}.mixer.conv1d.weight", axis=1),
    "blocks.{i}.inner.conv.bias": "backbone.layers.{i}.mixer.conv1d.bias",
    "blocks.{i}.inner.x_proj.weight": "backbone.layers.{i}.mixer.x_proj.weight",
    "blocks.{i}.inner.dt_proj.weight": "backbone.layers.{i}.mixer.dt_proj.weight",
    "blocks.{i}.inner.dt_bias": "backbone.layers.{i}.mixer.dt_proj.bias",
    "blocks.{i}.inner.A_log": "backbone.layers.{i}.mixer.A_log",
    "blocks.{i}.inner.D": "backbone.layers.{i}.mixer.D",
    "blocks.{i}.inner.out_proj.weight": "backbone.layers.{i}.mixer.out_proj.weight",
    "norm.weight": "backbone.norm_f.weight",
    "head.weight": Head("lm_head.weight", tokens="backbone.embeddings.weight"),
}


def _step_rank(config: Config) -> dict[str, Any]:
    """Returns the rank of the step size's projection, None for the word "auto"."""
    rank = config.value("time_step_rank", "auto", int, str)
    if isinstance(rank, str) and rank != "auto":
        raise refused("time_step_rank", rank, 'must be a whole number or "auto"')
    return {"dt_rank": None if rank == "auto" else rank}


KEYS: dict[str, Key] = {
    **EVERY,
    "vocab_size": To("vocab_size"),
    "hidden_size": To("d_model"),
    "num_hidden_layers": To("n_layers"),
    "layer_norm_epsilon": To("norm_eps", 1e-5),
    "state_size": To("d_state", 16),
    "conv_kernel": To("d_conv", 4),
    "expand": To("expand", 2),
    "tie_word_embeddings": To("tie_embeddings", default=True),
    "hidden_act": SWIGLU,
    "use_bias": Only(False),
    "use_conv_bias": Only(True),
    **{f"time_step_{word}": Unused() for word in ("scale", "min", "max", "floor", "init_scheme")},  # initial values
    "rescale_prenorm_residual": Unused(),
    "residual_in_fp32": Unused(),
    "use_mambapy": Unused(),
    "use_associative_scan": Unused(),
    "intermediate_size": Unused(),  # computed: expand * hidden_size
}
MAMBA = Architecture(
    model_type="mamba",
    classes=("MambaForCausalLM",),
    family="mamba",
    weights=WEIGHTS,
    keys=KEYS,
    together=(Together(("time_step_rank",), _step_rank),),
    prefix="backbone.",
)
FALCON_MAMBA = Architecture(
    model_type="falcon_mamba",
    classes=("FalconMambaForCausalLM",),
    family="mamba",
    weights=WEIGHTS,
    keys={**KEYS, "mixer_rms_eps": To("select_eps", 1e-6), "use_falcon_mambapy": Unused()},
    together=(Together(("time_step_rank",), _step_rank),),
    prefix="backbone.",
)
