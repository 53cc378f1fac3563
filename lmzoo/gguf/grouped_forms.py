"""GLM-4.5, MiniMax-M2, Hunyuan with experts, Trinity and gpt-oss in GGUF: grouped queries, and experts."""

from __future__ import annotations

import math

from lmzoo.gguf.expert_forms import CHOSEN, EXPERTS_OF_DEEPSEEK, FREE, MANY, SIGMOID, experts, shared
from lmzoo.gguf.form import (
    ENDS,
    HEAD_NORMS,
    INNER,
    PRE,
    ROPE,
    WIDE_NORMS,
    Form,
    Settings,
    Tensors,
    all_layers,
    all_of,
    attention,
    every_nth,
    norms,
)
from lmzoo.gguf.layouts import Part

_MLP = "blocks.{i}.1.inner."
_LATE_NORMS: Tensors = {f"blk.{{i}}.attn_{part}_norm.weight": f"{INNER}late_{part}_norm.weight" for part in ("q", "k")}
_PLAIN = {"n_groups": (1,), "attention_bias": ("none",)}
_BIASED_EXPERTS: Tensors = {
    **experts(),
    "blk.{i}.ffn_gate_inp.bias": f"{_MLP}router.bias",
    "blk.{i}.ffn_gate_exps.bias": Part(f"{_MLP}up_bias", 0, axis=1),
    "blk.{i}.ffn_up_exps.bias": Part(f"{_MLP}up_bias", 1, axis=1),
    "blk.{i}.ffn_down_exps.bias": f"{_MLP}down_bias",
}


def _scaled(settings: Settings) -> str | None:
    """Says if the embeddings have another factor than that of llama.cpp's graph."""
    found, wanted = settings["embedding_scale"], math.sqrt(settings["d_model"])
    return None if math.isclose(found, wanted) else f"embedding_scale={found} must be sqrt(d_model) = {wanted}"


def _windowed(settings: Settings) -> str | None:
    return "window must be a number" if settings["window"] is None else None


GROUPED_FORMS = (
    Form(
        "glm4moe",
        "deepseek",
        {
            **ENDS,
            **norms(attn_norm="0.before", post_attention_norm="1.before"),
            **attention(),
            **HEAD_NORMS,
            **EXPERTS_OF_DEEPSEEK,
        },
        {**ROPE, **MANY},
        {"n_groups": (1,), "qk_norm": ("none", "head"), "attention_bias": ("none", "qkv")},
        all_layers("grouped"),
        (*FREE, "rotary_fraction"),
    ),
    Form(
        "minimax-m2",
        "deepseek",
        {**ENDS, **PRE, **attention(), **WIDE_NORMS, **experts(), "blk.{i}.exp_probs_b.bias": f"{_MLP}choice_bias"},
        {
            **ROPE,
            **CHOSEN,
            "feed_forward_length": "d_expert",
            "expert_feed_forward_length": "d_expert",
            "expert_gating_func": SIGMOID,
        },
        {
            **_PLAIN,
            "qk_norm": ("all",),
            "n_shared": (0,),
            "n_dense": (0,),
            "sigmoid": (True,),
            "normalize": (True,),
            "routed_scale": (1.0,),
            "balance_bias": (True,),
        },
        all_layers("grouped"),
        ("pattern", "window", "group_best", "rotary_fraction"),
    ),
    Form(
        "hunyuan-moe",
        "deepseek",
        {**ENDS, **PRE, **attention(), **_LATE_NORMS, **experts(), **shared()},
        {
            **ROPE,
            **CHOSEN,
            "feed_forward_length": "d_expert",
            "expert_feed_forward_length": "d_expert",
            "expert_shared_count": "n_shared",
            "expert_shared_feed_forward_length": lambda settings: settings["n_shared"] * settings["d_expert"],
        },
        {
            **_PLAIN,
            "qk_norm": ("late",),
            "rotary_fraction": (1.0,),
            "n_dense": (0,),
            "sigmoid": (False,),
            "normalize": (True,),
            "routed_scale": (1.0,),
            "balance_bias": (False,),
        },
        lambda settings: all_layers("grouped")(settings) if settings["n_shared"] else "n_shared=0 must be above 0",
        ("pattern", "window", "group_best"),
    ),
    Form(
        "afmoe",
        "deepseek",
        {
            **ENDS,
            **norms(attn_norm="0.before", post_attention_norm="0.after", ffn_norm="1.before", post_ffw_norm="1.after"),
            **attention(),
            **HEAD_NORMS,
            "blk.{i}.attn_gate.weight": f"{INNER}gate.weight",
            **EXPERTS_OF_DEEPSEEK,
        },
        {**ROPE, **MANY, "attention.sliding_window": "window"},
        {
            **_PLAIN,
            "qk_norm": ("head",),
            "gate": (True,),
            "post_norms": (True,),
            "rotary_fraction": (1.0,),
            "sigmoid": (True,),
            "balance_bias": (True,),
        },
        all_of(every_nth(4, "window", "grouped_nope"), _scaled),
        (*FREE, "embedding_scale"),
    ),
    Form(
        "gpt-oss",
        "mixtral",
        {
            **ENDS,
            **norms(attn_norm="0.before", post_attention_norm="1.before"),
            **attention(),
            "blk.{i}.attn_sinks.weight": f"{INNER}sinks",
            **_BIASED_EXPERTS,
        },
        {**ROPE, **CHOSEN, "expert_feed_forward_length": "d_ff", "attention.sliding_window": "window"},
        {
            "sinks": (True,),
            "clamp": (7.0,),
            "attention_bias": ("all",),
            "qk_norm": ("none",),
            "normalize": (True,),
            "balance_bias": (False,),
        },
        all_of(every_nth(2, "rope", "full"), _windowed),
        ("pattern",),
        rope=("yarn",),
    ),
)
