"""Mamba-2 in transformers, by itself and as the mixer of other models."""

from __future__ import annotations

import math
from typing import Any

from lmzoo.hf.architecture import LARGEST, Architecture, Config, Key, Only, Settings, To, Together, Unread, refused
from lmzoo.hf.keys import SIZES, SWIGLU, unused
from lmzoo.hf.layouts import Source, Squeezed
from lmzoo.hf.names import frame
from lmzoo.hf.weights import Weights

_INFINITE = (
    math.inf,
    "Infinity",
    {"__float__": "Infinity"},
)  # JSON has no infinity, and files spell it in several ways
# The limits of the step size, where transformers does not read them.
UNLIMITED = Only([0.0, math.inf], (None, *([0.0, infinite] for infinite in _INFINITE)))


def _limits(config: Config) -> dict[str, Any]:
    """Returns the least and the greatest step size."""
    found = config.get("time_step_limit")
    if found is None:
        return {"dt_min": 0.0, "dt_max": None}
    if isinstance(found, (list, tuple)) and len(found) == 2:
        low, high = found[0], None if found[1] in _INFINITE else found[1]
        if type(low) in (int, float) and 0 <= low <= LARGEST and (high is None or type(high) in (int, float)):
            return {"dt_min": float(low), "dt_max": None if high is None else float(high)}
    raise refused("time_step_limit", found, "must be two numbers, the second one may be Infinity")


def _limits_keys(ours: Settings) -> dict[str, Any]:
    low, high = ours["dt_min"], ours["dt_max"]
    return {} if (low, high) == (0, None) else {"time_step_limit": [low, _INFINITE[2] if high is None else high]}


LIMITS = Together(("time_step_limit",), _limits, _limits_keys)


def mixer(ours: str, theirs: str) -> dict[str, Source]:
    """Returns the names of the weights of a mixer, which has these prefixes in lmzoo and in the checkpoint."""
    same = ("in_proj.weight", "conv1d.bias", "dt_bias", "A_log", "D", "norm.weight", "out_proj.weight")
    same = (*same, "in_proj.bias", "out_proj.bias")
    renamed = {"conv1d.bias": "conv.bias", "norm.weight": "norm_weight"}
    return {
        **{f"{ours}{renamed.get(name, name)}": f"{theirs}{name}" for name in same},
        f"{ours}conv.weight": Squeezed(f"{theirs}conv1d.weight", axis=1),
    }


MIXER_KEYS: dict[str, Key] = {
    "mamba_d_state": To("d_state", 256),
    "mamba_d_conv": To("d_conv", 4),
    "mamba_n_groups": To("ssm_groups", 1),
    "mamba_conv_bias": To("ssm_conv_bias", default=True),
    "mamba_proj_bias": To("ssm_bias", default=False),
    **unused("mamba_chunk_size"),
}


def mamba_heads(config: Config, inner: int, rule: str) -> int:
    """Returns the number of heads of a mixer, which fill the inner width; `rule` is its text in the error."""
    heads, width = config.value("mamba_n_heads", 128), config.value("mamba_d_head", "auto", int, str)
    if heads < 1 or inner % heads or width not in ("auto", inner // heads):
        raise refused("mamba_n_heads", heads, f"times mamba_d_head must be {rule}")
    return heads


def _mixer_heads(config: Config) -> dict[str, Any]:
    """Returns the width of a head and the factor of the inner width."""
    expand = config.value("mamba_expand", 2)
    inner = expand * config.value("hidden_size", 4096)
    heads = mamba_heads(config, inner, f"mamba_expand * hidden_size = {inner}")
    return {"ssm_head_dim": inner // heads, "expand": expand}


def _mixer_heads_keys(ours: Settings) -> dict[str, Any]:
    inner, width = ours["expand"] * ours["d_model"], ours["ssm_head_dim"]
    return {"mamba_n_heads": inner // width, "mamba_d_head": width, "mamba_expand": ours["expand"]}


MIXER_HEADS = Together(("mamba_n_heads", "mamba_d_head", "mamba_expand"), _mixer_heads, _mixer_heads_keys)


WEIGHTS: Weights = {
    **frame("backbone.embeddings", "backbone.norm_f"),
    "blocks.{i}.before.weight": "backbone.layers.{i}.norm.weight",
    **mixer("blocks.{i}.inner.", "backbone.layers.{i}.mixer."),
}


def _heads(config: Config) -> dict[str, Any]:
    """Checks that the heads fill the inner width."""
    inner = config.value("hidden_size", 4096) * config.value("expand", 2)
    if config.value("num_heads", 128) * config.value("head_dim", 64) != inner:
        raise refused("num_heads", config.get("num_heads"), f"times head_dim must be expand * hidden_size = {inner}")
    return {}


def _heads_keys(ours: Settings) -> dict[str, Any]:
    return {"num_heads": ours["expand"] * ours["d_model"] // ours["head_dim"]}


MAMBA2 = Architecture(
    model_type="mamba2",
    classes=("Mamba2ForCausalLM",),
    family="mamba2",
    weights=WEIGHTS,
    keys={
        **SIZES,
        "max_position_embeddings": To("context_length", 256),  # of lmzoo: transformers has no such key here
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "state_size": To("d_state", 128),
        "head_dim": To("head_dim", 64),
        "n_groups": To("n_groups", 8),
        "conv_kernel": To("d_conv", 4),
        "expand": To("expand", 2),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "hidden_act": SWIGLU,
        # for initial values
        **unused("time_step_rank", "time_step_min", "time_step_max", "time_step_floor"),
        **unused("time_step_scale", "time_step_init_scheme"),
        "rms_norm": Unread(True),
        **unused("norm_before_gate", "intermediate_size", "chunk_size"),
        **unused("rescale_prenorm_residual", "residual_in_fp32"),
        "use_bias": To("bias", default=False),
        "use_conv_bias": To("conv_bias", default=True),
    },
    together=(Together(("num_heads",), _heads, _heads_keys), LIMITS),
    prefix="backbone.",
)
