"""Llama and its relatives in GGUF: with experts, with norms after the branches, Granite, Gemma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmzoo.gguf.expert_forms import experts
from lmzoo.gguf.form import (
    ENDS,
    HEAD_NORMS,
    INNER,
    PRE,
    ROPE,
    TIED_ENDS,
    WIDE_NORMS,
    Form,
    Settings,
    Tensors,
    all_layers,
    all_of,
    attention,
    equal_widths,
    every_nth,
    fused,
    kinds_of,
    layers_are,
    mlp,
    no_windows,
    norms,
)
from lmzoo.gguf.layouts import PlusOne


def _nope_in_each_fourth(settings: Settings) -> str | None:
    kinds = kinds_of(settings)
    wanted = ["nope" if (layer + 1) % 4 == 0 else "full" for layer in range(len(kinds))]
    found = ["full" if kind == "rope" else kind for kind in kinds]
    return no_windows(settings) if found == wanted else f"pattern={settings['pattern']!r} must be rope*3 nope"


_EXPERTS = experts()
_MOE = {**ROPE, "expert_count": "n_experts", "expert_used_count": "top_k"}
_NO_EXTRAS = {"gate": (False,), "sinks": (False,), "rotary_fraction": (1.0,)}
_LLAMA = ENDS | PRE | attention(neighbors=True) | mlp(gated=True)
_QWEN = ENDS | PRE | attention() | mlp(gated=True)
_EXPERT_NEEDS: Mapping[str, tuple[Any, ...]] = {"balance_bias": (False,)}


def _plus_one(tensors: Tensors) -> Tensors:
    return {name: PlusOne(source) if "norm" in name else source for name, source in tensors.items()}


_GEMMA = _plus_one(
    {
        **TIED_ENDS,
        **norms(attn_norm="0.before", post_attention_norm="0.after", ffn_norm="1.before", post_ffw_norm="1.after"),
        **attention(),
        **mlp(gated=True),
    }
)


def _gemma_scale(settings: Settings) -> str | None:
    if settings["query_scalar"] not in (None, settings["head_dim"]):
        return f"query_scalar={settings['query_scalar']} must be head_dim={settings['head_dim']}"
    return None


def _gemma2_thetas(settings: Settings) -> str | None:
    """Says what does not fit: llama.cpp has one base, 10000, for all layers of Gemma 2."""
    thetas = settings["rope_theta"], settings["local_rope_theta"]
    return None if thetas == (1e4, 1e4) else f"rope_theta={thetas[0]} and local_rope_theta={thetas[1]} must be 10000"


def _not_64_layers(settings: Settings) -> str | None:
    """Says if llama.cpp would give the layers windows: it knows the model that has them by the number of its layers."""
    return "n_layers=64 must be another number" if settings["n_layers"] == 64 else None


def _capped(settings: Settings) -> str | None:
    caps = [name for name in ("attention_cap", "logit_cap") if settings[name] is None]
    return f"{caps[0]} must be a number" if caps else None


LLAMA_FORMS = (
    Form(
        "qwen3",
        "llama",
        {**_QWEN, **HEAD_NORMS},
        ROPE,
        {**_NO_EXTRAS, "qk_norm": (True,), "attention_bias": ("none",)},
        layers_are("rope", "full", windowed="rope"),
        ("pattern", "window"),
        rope=("linear", "yarn"),
    ),
    Form(
        "qwen2",
        "llama",
        _QWEN,
        ROPE,
        {**_NO_EXTRAS, "qk_norm": (False,), "attention_bias": ("qkv",)},
        layers_are("rope", "full", windowed="rope"),
        ("pattern", "window"),
        rope=("linear", "yarn"),
    ),
    Form(
        "llama",
        "llama",
        _LLAMA,
        ROPE,
        {**_NO_EXTRAS, "qk_norm": (False,), "attention_bias": ("none", "all")},
        layers_are("rope", "full", windowed="rope"),
        ("pattern", "window"),
        rope=("linear", "yarn", "llama3", "ntk"),
    ),
    Form(
        "smollm3",
        "llama",
        _LLAMA,
        ROPE,
        {**_NO_EXTRAS, "qk_norm": (False,), "attention_bias": ("none",)},
        _nope_in_each_fourth,
        ("pattern", "window"),
        rope=("linear", "yarn"),
    ),
    Form(
        "arcee",
        "llama",
        ENDS | PRE | attention(neighbors=True) | mlp(gated=False),
        ROPE,
        {**_NO_EXTRAS, "mlp": ("relu2",), "qk_norm": (False,), "attention_bias": ("none",)},
        layers_are("rope", "full", windowed="rope"),
        ("pattern", "window"),
        rope=("linear", "yarn", "llama3", "ntk"),
    ),
    Form(
        "hunyuan-dense",
        "llama",
        {**_QWEN, **{f"blk.{{i}}.attn_{part}_norm.weight": f"{INNER}late_{part}_norm.weight" for part in ("q", "k")}},
        ROPE,
        {**_NO_EXTRAS, "late_qk_norm": (True,), "qk_norm": (False,), "attention_bias": ("none",)},
        layers_are("rope", "full", windowed="rope"),
        ("pattern", "window"),
    ),
    Form(
        "phi3",
        "llama",
        {
            **ENDS,
            **PRE,
            **fused(),
            "blk.{i}.ffn_up.weight": "blocks.{i}.1.inner.up.weight",
            "blk.{i}.ffn_down.weight": "blocks.{i}.1.inner.down.weight",
        },
        {**ROPE, "attention.sliding_window": 0},
        {"gate": (False,), "sinks": (False,), "qk_norm": (False,), "attention_bias": ("none",)},
        layers_are("rope", "full", windowed="rope"),
        ("pattern", "window", "rotary_fraction"),
        rope=("longrope",),
    ),
    Form(
        "llama",
        "mixtral",
        ENDS | PRE | attention(neighbors=True) | _EXPERTS,
        _MOE,
        {**_EXPERT_NEEDS, "qk_norm": ("none",), "normalize": (True,)},
        no_windows,
        ("window",),
    ),
    Form(
        "qwen3moe",
        "mixtral",
        ENDS | PRE | attention() | _EXPERTS | HEAD_NORMS,
        {**_MOE, "expert_feed_forward_length": "d_ff"},
        {**_EXPERT_NEEDS, "qk_norm": ("head",), "normalize": (True,)},
        no_windows,
        ("window",),
    ),
    Form(
        "olmoe",
        "mixtral",
        ENDS | PRE | attention() | _EXPERTS | WIDE_NORMS,
        _MOE,
        {**_EXPERT_NEEDS, "qk_norm": ("all",), "normalize": (False,)},
        no_windows,
        ("window",),
    ),
    Form(
        "olmo2",
        "olmo2",
        {
            **ENDS,
            **norms(post_attention_norm="0.after", post_ffw_norm="1.after"),
            **attention(),
            **mlp(gated=True),
            **WIDE_NORMS,
        },
        ROPE,
        {},
        all_of(layers_are("rope"), equal_widths),
        ("pattern", "window"),
    ),
    Form(
        "exaone4",
        "olmo2",
        {
            **ENDS,
            **norms(post_attention_norm="0.after", post_ffw_norm="1.after"),
            **attention(),
            **mlp(gated=True),
            **HEAD_NORMS,
        },
        ROPE,
        {"qk_norm": ("head",)},
        all_of(all_layers("rope"), _not_64_layers),
        ("pattern", "window"),
        rope=("linear", "yarn", "llama3", "ntk"),
    ),
    Form(
        "granite",
        "granite",
        _LLAMA,
        {
            **ROPE,
            "attention.scale": "attention_scale",
            "embedding_scale": "embedding_scale",
            "residual_scale": "residual_scale",
            "logit_scale": "logit_divisor",
        },
        {"attention_bias": (False,)},
        rope=("linear", "yarn"),
    ),
    Form(
        "gemma3",
        "gemma3",
        {**_GEMMA, **_plus_one(HEAD_NORMS), "output.weight": ENDS["output.weight"]},
        {
            **ROPE,
            "attention.sliding_window": "window",
            "rope.freq_base_swa": "local_rope_theta",
            "final_logit_softcapping": "logit_cap",
        },
        {"qk_norm": (True,), "attention_cap": (None,), "local_rope_theta": (1e4,)},
        all_of(every_nth(6, "local", "global"), _gemma_scale),
        ("pattern", "query_scalar"),
        rope=("linear",),
    ),
    Form(
        "gemma",
        "gemma3",
        _plus_one(TIED_ENDS | PRE | attention() | mlp(gated=True)),
        ROPE,
        {"qk_norm": (False,), "post_norms": (False,), "tie_embeddings": (True,)}
        | {"attention_cap": (None,), "logit_cap": (None,)},
        all_of(all_layers("global"), _gemma_scale),
        ("pattern", "query_scalar", "local_rope_theta", "window"),
    ),
    Form(
        "gemma2",
        "gemma3",
        _GEMMA,
        {
            **{key: value for key, value in ROPE.items() if not key.startswith("rope.")},
            "attention.sliding_window": "window",
            "attn_logit_softcapping": "attention_cap",
            "final_logit_softcapping": "logit_cap",
        },
        {"qk_norm": (False,), "tie_embeddings": (True,)},
        all_of(every_nth(2, "local", "global"), _gemma_scale, _gemma2_thetas, _capped),
        ("pattern", "query_scalar", "rope_theta", "local_rope_theta"),
    ),
)
