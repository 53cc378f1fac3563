"""DeepSeek, dots.llm1, Qwen2-MoE and Granite with experts in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.gguf.form import (
    ENDS,
    HEAD_NORMS,
    INNER,
    PRE,
    ROPE,
    SIZES,
    Form,
    Settings,
    Tensors,
    all_layers,
    all_of,
    attention,
    layers_are,
    mlp,
)
from lmzoo.gguf.layouts import Beside, HeadRows, Part, ToNeighbors
from lmzoo.hf.layouts import Either, Source

SOFTMAX, SIGMOID = 1, 2  # llama.cpp's numbers of functions for affinities
_MLP = "blocks.{i}.1.inner."


def experts(inner: str = _MLP) -> Tensors:
    """Returns the router, and the experts that it chooses."""
    return {
        "blk.{i}.ffn_gate_inp.weight": f"{inner}router.weight",
        "blk.{i}.ffn_gate_exps.weight": Part(f"{inner}up", 0, axis=1),
        "blk.{i}.ffn_up_exps.weight": Part(f"{inner}up", 1, axis=1),
        "blk.{i}.ffn_down_exps.weight": f"{inner}down",
    }


def shared(inner: str = f"{_MLP}shared.") -> Tensors:
    """Returns the experts that read every token."""
    return {
        "blk.{i}.ffn_gate_shexp.weight": Part(f"{inner}up.weight", 0),
        "blk.{i}.ffn_up_shexp.weight": Part(f"{inner}up.weight", 1),
        "blk.{i}.ffn_down_shexp.weight": f"{inner}down.weight",
    }


def _dense(settings: Settings) -> int:
    return min(settings["n_dense"], settings["n_layers"])


def _gating(settings: Settings) -> int:
    return SIGMOID if settings["sigmoid"] else SOFTMAX


CHOSEN = {"expert_count": "n_experts", "expert_used_count": "top_k"}
EXPERTS_OF_DEEPSEEK: Tensors = {
    **mlp(gated=True),
    **experts(),
    **shared(),
    "blk.{i}.exp_probs_b.bias": f"{_MLP}choice_bias",
}
MANY: Mapping[str, Any] = {
    **CHOSEN,
    "leading_dense_block_count": _dense,
    "expert_feed_forward_length": "d_expert",
    "expert_shared_count": "n_shared",
    "expert_weights_scale": "routed_scale",
    "expert_weights_norm": "normalize",
    "expert_gating_func": _gating,
}
FREE = ("pattern", "sigmoid", "n_dense", "window", "group_best", "balance_bias")  # the last one has a tensor


_KEYS_AND_VALUES = (f"{INNER}kv_up.weight", "n_heads", ("nope_dim", "v_dim"))


def latent(queries: Source, keys: Source) -> Tensors:
    """Returns latent attention; the last projection of queries, and the first of keys, may have a layout."""
    return {
        "blk.{i}.attn_q_a.weight": f"{INNER}q_down.weight",
        "blk.{i}.attn_q_a_norm.weight": f"{INNER}q_norm.weight",
        "blk.{i}.attn_q_b.weight": Beside(queries, f"{INNER}q_down.weight"),
        "blk.{i}.attn_q.weight": Beside(queries, f"{INNER}q_down.weight", absent=True),
        "blk.{i}.attn_kv_a_mqa.weight": keys,
        "blk.{i}.attn_kv_a_norm.weight": f"{INNER}kv_norm.weight",
        "blk.{i}.attn_k_b.weight": HeadRows(*_KEYS_AND_VALUES, 0, turned=True),
        "blk.{i}.attn_v_b.weight": HeadRows(*_KEYS_AND_VALUES, 1),
        "blk.{i}.attn_output.weight": f"{INNER}out.weight",
    }


LATENT_SIZES: Mapping[str, Any] = {
    "feed_forward_length": "d_ff",
    "attention.head_count": "n_heads",
    "attention.q_lora_rank": "q_rank",
    "attention.kv_lora_rank": "kv_rank",
    "attention.key_length": lambda settings: settings["kv_rank"] + settings["rope_dim"],
    "attention.value_length": "kv_rank",
    "attention.key_length_mla": lambda settings: settings["nope_dim"] + settings["rope_dim"],
    "attention.value_length_mla": "v_dim",
    "rope.dimension_count": "rope_dim",
}


def one_eps(settings: Settings) -> str | None:
    """A rule: all norms have the same epsilon."""
    eps = settings["latent_eps"], settings["norm_eps"]
    return None if eps[0] == eps[1] else f"latent_eps={eps[0]} must be norm_eps={eps[1]}"


def _has_shared(settings: Settings) -> str | None:
    return None if settings["d_shared"] else "d_shared must be a number"


EXPERT_FORMS = (
    Form(
        "deepseek2",
        "deepseek",
        {
            **ENDS,
            **PRE,
            **EXPERTS_OF_DEEPSEEK,
            **latent(
                ToNeighbors(f"{INNER}q.weight", "n_heads", "rope_dim"),
                ToNeighbors(f"{INNER}kv_down.weight", 1, "rope_dim"),
            ),
        },
        {
            **SIZES,
            **MANY,
            **LATENT_SIZES,
            "attention.head_count_kv": 1,  # llama.cpp computes with one head of keys: the cached features
            "rope.freq_base": "rope_theta",
        },
        {"n_groups": (1,), "sharpness": (1.0,)},
        all_of(one_eps, all_layers("rope")),
        (*FREE, "nope_dim", "latent_eps"),
    ),
    Form(
        "dots1",
        "deepseek",
        {**ENDS, **PRE, **EXPERTS_OF_DEEPSEEK, **attention(), **HEAD_NORMS},
        {**ROPE, **MANY},
        {"n_groups": (1,), "qk_norm": ("head",), "attention_bias": ("none",), "rotary_fraction": (1.0,)},
        all_layers("grouped"),
        FREE,
    ),
    Form(
        "qwen2moe",
        "mixtral",
        {
            **ENDS,
            **PRE,
            **attention(),
            **experts(),
            **shared(),
            "blk.{i}.ffn_gate_inp_shexp.weight": f"{_MLP}shared_gate.weight",
        },
        {
            **ROPE,
            **CHOSEN,
            "expert_feed_forward_length": "d_ff",
            "expert_shared_feed_forward_length": "d_shared",
        },
        {"qk_norm": ("none",), "attention_bias": ("qkv",), "normalize": (False,)},
        all_of(layers_are("rope", "full", windowed="rope"), _has_shared),
        ("pattern", "window"),
    ),
    Form(
        "granitemoe",
        "granite",
        {
            **ENDS,
            **PRE,
            **attention(neighbors=True),
            **{
                name: Either((source, other))
                for (name, source), other in zip(experts().items(), experts(f"{_MLP}0.").values(), strict=True)
            },
            **shared(f"{_MLP}1."),
        },
        {
            **ROPE,
            **CHOSEN,
            "attention.scale": "attention_scale",
            "embedding_scale": "embedding_scale",
            "residual_scale": "residual_scale",
            "logit_scale": "logit_divisor",
            "expert_shared_feed_forward_length": lambda settings: settings["d_shared"] or None,
        },
        {"attention_bias": (False,)},
        lambda settings: None if settings["n_experts"] else "n_experts=0 must be above 0",
        ("d_shared",),
    ),
)
