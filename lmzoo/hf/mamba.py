"""Mamba and Falcon Mamba in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, To, Together, Unread, Unused, refused
from lmzoo.hf.keys import SIZES, SWIGLU, unused
from lmzoo.hf.layouts import Source, Squeezed
from lmzoo.hf.names import frame
from lmzoo.hf.weights import Weights


def mixer(ours: str, theirs: str) -> dict[str, Source]:
    """Returns the names of the weights of one mixer, for the beginnings of the names in lmzoo and in the checkpoint."""
    same = ("in_proj.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D")
    same = (*same, "in_proj.bias", "out_proj.bias")
    renamed = {"conv1d.bias": "conv.bias", "dt_proj.bias": "dt_bias"}
    return {
        **{f"{ours}{renamed.get(name, name)}": f"{theirs}{name}" for name in (*same, "out_proj.weight")},
        f"{ours}conv.weight": Squeezed(f"{theirs}conv1d.weight", axis=1),
    }


WEIGHTS: Weights = {
    **frame("backbone.embeddings", "backbone.norm_f"),
    "blocks.{i}.before.weight": "backbone.layers.{i}.norm.weight",
    **mixer("blocks.{i}.inner.", "backbone.layers.{i}.mixer."),
}


def step_rank(key: str) -> Together:
    """Returns the key of the rank of the step size's projection; the word "auto" stands for None."""

    def settings(config: Config) -> dict[str, Any]:
        rank = config.value(key, "auto", int, str)
        if isinstance(rank, str) and rank != "auto":
            raise refused(key, rank, 'must be a whole number or "auto"')
        return {"dt_rank": None if rank == "auto" else rank}

    return Together((key,), settings, lambda ours: {key: ours["dt_rank"]})


def _expand(config: Config) -> dict[str, Any]:
    """Returns the inner width, divided by the outer one; transformers reads `intermediate_size` if it is there."""
    width, expand = config.value("hidden_size", 768), config.value("expand", 2)
    inner = config.value("intermediate_size", expand * width)
    if inner % max(1, width):
        raise refused("intermediate_size", inner, f"must be a multiple of hidden_size={width}")
    return {"expand": inner // max(1, width)}


INNER = Together(("expand", "intermediate_size"), _expand, lambda ours: {"expand": ours["expand"]})
KEYS: dict[str, Key] = {
    **SIZES,
    "max_position_embeddings": To("context_length", 256),  # of lmzoo: transformers has no such key here
    "layer_norm_epsilon": To("norm_eps", 1e-5),
    "state_size": To("d_state", 16),
    "conv_kernel": To("d_conv", 4),
    "tie_word_embeddings": To("tie_embeddings", default=True),
    "hidden_act": SWIGLU,
    "use_bias": To("bias", default=False),
    "use_conv_bias": To("conv_bias", default=True),
    # for initial values
    **unused("time_step_scale", "time_step_min", "time_step_max", "time_step_floor", "time_step_init_scheme"),
    **unused("rescale_prenorm_residual", "residual_in_fp32", "use_mambapy", "use_associative_scan", "d_inner"),
    "rms_norm": Unread(True),
    **unused("fused_add_norm", "pad_vocab_size_multiple", "ssm_cfg"),
}
ALIASES = {"d_model": "hidden_size", "n_layer": "num_hidden_layers"}
MAMBA = Architecture(
    model_type="mamba",
    classes=("MambaForCausalLM",),
    family="mamba",
    weights=WEIGHTS,
    keys=KEYS,
    together=(step_rank("time_step_rank"), INNER),
    aliases=ALIASES,
    prefix="backbone.",
)
FALCON_MAMBA = Architecture(
    model_type="falcon_mamba",
    classes=("FalconMambaForCausalLM",),
    family="mamba",
    weights=WEIGHTS,
    keys={**KEYS, "mixer_rms_eps": To("select_eps", 1e-6), "use_falcon_mambapy": Unused()},
    together=(step_rank("time_step_rank"), INNER),
    aliases=ALIASES,
    prefix="backbone.",
)
