"""Jamba, Granite 4.0 and Falcon-H1 in GGUF: attention and Mamba, in turns or side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.gguf.expert_forms import experts, shared
from lmzoo.gguf.form import (
    ENDS,
    INNER,
    PRE,
    ROPE,
    SIZES,
    Form,
    Settings,
    Tensors,
    attention,
    kinds_of,
    layers_are,
    mlp,
    norms,
)
from lmzoo.gguf.layouts import NegativeExp, Part, Scaled, Shaped
from lmzoo.hf.layouts import Either, Rows

_MLP = "blocks.{i}.1.inner."


def _mamba2(inner: str, groups: str) -> Tensors:
    """Returns the tensors of Mamba-2; `groups` is the setting with the number of its groups of heads."""
    return {
        "blk.{i}.ssm_in.weight": f"{inner}in_proj.weight",
        "blk.{i}.ssm_conv1d.weight": f"{inner}conv.weight",
        "blk.{i}.ssm_conv1d.bias": f"{inner}conv.bias",
        "blk.{i}.ssm_dt.bias": f"{inner}dt_bias",
        "blk.{i}.ssm_a": Shaped(NegativeExp(f"{inner}A_log"), (-1, 1)),
        "blk.{i}.ssm_d": Shaped(f"{inner}D", (-1, 1)),
        "blk.{i}.ssm_norm.weight": Shaped(f"{inner}norm_weight", (groups, -1)),
        "blk.{i}.ssm_out.weight": f"{inner}out_proj.weight",
    }


def _kv_heads(*attending: str) -> Any:
    """Returns the key with the heads of keys of each layer, of which those of other words have none."""

    def heads(settings: Settings) -> list[int]:
        words = kinds_of(settings)
        return [settings["n_kv_heads"] if word.partition("+")[0] in attending else 0 for word in words]

    return heads


_STATE: Mapping[str, Any] = {"ssm.conv_kernel": "d_conv", "ssm.state_size": "d_state"}


def _jamba_experts(settings: Settings) -> bool:
    return any(word.endswith("+experts") for word in kinds_of(settings))


_JAMBA: Tensors = {
    **ENDS,
    **PRE,
    **attention(),
    "blk.{i}.ssm_in.weight": f"{INNER}in_proj.weight",
    "blk.{i}.ssm_conv1d.weight": f"{INNER}conv.weight",
    "blk.{i}.ssm_conv1d.bias": f"{INNER}conv.bias",
    "blk.{i}.ssm_x.weight": f"{INNER}x_proj.weight",
    "blk.{i}.ssm_dt.weight": f"{INNER}dt_proj.weight",
    "blk.{i}.ssm_dt.bias": f"{INNER}dt_bias",
    **{
        f"blk.{{i}}.ssm_{part}_norm.weight": f"{INNER}select_norms.{n}.weight"
        for n, part in enumerate(("dt", "b", "c"))
    },
    "blk.{i}.ssm_a": NegativeExp(f"{INNER}A_log"),
    "blk.{i}.ssm_d": f"{INNER}D",
    "blk.{i}.ssm_out.weight": f"{INNER}out_proj.weight",
    **mlp(gated=True),
    **experts(),
}


def _granite_rotates(settings: Settings) -> bool:
    return "rope" in kinds_of(settings)


def _granite_kinds(settings: Settings) -> str | None:
    kinds = {*kinds_of(settings)}
    if "mamba2" not in kinds or not kinds <= {"mamba2", "rope", "nope"} or kinds >= {"rope", "nope"}:
        return f"pattern={settings['pattern']!r} must have mamba2 and one kind of attention, rope or nope"
    return None


def _ssm_heads(settings: Settings) -> int:
    return settings["inner"] // settings["ssm_head_dim"]


def _either(tensors: Tensors, *others: Tensors) -> Tensors:
    """Returns tensors that have one of several names in lmzoo."""
    return {name: Either((source, *(other[name] for other in others))) for name, source in tensors.items()}


_ATTENTION, _MAMBA = "blocks.{i}.0.inner.0.0.", "blocks.{i}.0.inner.1.0."
_SSM_PARTS = ("gate", "x", "b", "c", "dt")
SCALES = (
    *("embedding_scale", "attention_in_scale", "key_scale", "attention_out_scale", "ssm_in_scale", "ssm_out_scale"),
    *("mlp_gate_scale", "mlp_out_scale", "logit_scale", *(f"ssm_{part}_scale" for part in _SSM_PARTS)),
)


_SHARES = ("d_ssm", "d_ssm", "d_maps", "d_maps", "ssm_heads")
_PROJECTED = tuple(
    Scaled(Part(f"{_MAMBA}in_proj.weight", n, _SHARES), ("ssm_in_scale", f"ssm_{part}_scale"))
    for n, part in enumerate(_SSM_PARTS)
)


def _scaled_h1(tensors: Tensors) -> Tensors:
    """Returns tensors with the factors of Falcon-H1, which llama.cpp does not have."""
    factors = {
        "token_embd.weight": ("embedding_scale",),
        "output.weight": ("logit_scale",),
        "blk.{i}.attn_q.weight": ("attention_in_scale",),
        "blk.{i}.attn_k.weight": ("attention_in_scale", "key_scale"),
        "blk.{i}.attn_v.weight": ("attention_in_scale",),
        "blk.{i}.attn_output.weight": ("attention_out_scale",),
        "blk.{i}.ssm_out.weight": ("ssm_out_scale",),
        "blk.{i}.ffn_gate.weight": ("mlp_gate_scale",),
        "blk.{i}.ffn_down.weight": ("mlp_out_scale",),
    }
    return {name: Scaled(source, factors[name]) if name in factors else source for name, source in tensors.items()}


_FALCON_H1 = _scaled_h1(
    {
        **ENDS,
        **norms(attn_norm="0.before"),
        "blk.{i}.ffn_norm": "blocks.{i}.1.before.weight",  # llama.cpp reads it without an ending
        **attention(_ATTENTION),
        **_mamba2(_MAMBA, "ssm_groups"),
        "blk.{i}.ssm_in.weight": Rows(_PROJECTED, _SHARES),
        **mlp(gated=True),
    }
)
_GRANITE: Tensors = {
    **ENDS,
    **PRE,
    **attention(neighbors=True),
    **_mamba2(INNER, "ssm_groups"),
    **mlp(gated=True),
    **_either(experts(), experts(f"{_MLP}0.")),
    **shared(f"{_MLP}1."),
}


MAMBA_FORMS = (
    Form(
        "jamba",
        "hybrid",
        _JAMBA,
        {
            **SIZES,
            **_STATE,
            "feed_forward_length": "d_ff",
            "attention.head_count": "n_heads",
            "attention.head_count_kv": _kv_heads("nope"),
            "ssm.inner_size": "inner",
            "ssm.time_step_rank": "dt_rank",
            "expert_count": lambda settings: settings["n_experts"] if _jamba_experts(settings) else 0,
            "expert_used_count": lambda settings: settings["top_k"] if _jamba_experts(settings) else 0,
        },
        {"select_norm": (True,), "normalize": (False,), "ssm_bias": (False,), "ssm_conv_bias": (True,), "expand": (2,)},
        layers_are("mamba", "nope", "mamba+experts", "nope+experts"),
        ("pattern", "n_experts", "top_k"),
    ),
    Form(
        "granitehybrid",
        "granite",
        _GRANITE,
        {
            **ROPE,
            **_STATE,
            "attention.head_count_kv": _kv_heads("rope", "nope"),
            "ssm.inner_size": "inner",
            "ssm.time_step_rank": _ssm_heads,
            "ssm.group_count": "ssm_groups",
            "rope.scaling.finetuned": _granite_rotates,  # by which llama.cpp decides whether to rotate
            "expert_count": "n_experts",
            "expert_used_count": lambda settings: settings["top_k"] if settings["n_experts"] else 0,
            "attention.scale": "attention_scale",
            "embedding_scale": "embedding_scale",
            "residual_scale": "residual_scale",
            "logit_scale": "logit_divisor",
            "expert_shared_feed_forward_length": lambda settings: settings["d_shared"] or None,
        },
        {"attention_bias": (False,), "ssm_bias": (False,)},
        _granite_kinds,
        ("pattern", "top_k", "d_shared", "expand", "ssm_head_dim", "ssm_conv_bias"),
    ),
    Form(
        "falcon-h1",
        "falcon_h1",
        _FALCON_H1,
        {
            **ROPE,
            **_STATE,
            "ssm.inner_size": "d_ssm",
            "ssm.time_step_rank": "ssm_heads",
            "ssm.group_count": "ssm_groups",
        },
        {"ssm_norm": ("none", "after"), "tie_embeddings": (False,)},
        free=("ssm_conv_bias", *SCALES),
        rope=("linear", "yarn"),
    ),
)
