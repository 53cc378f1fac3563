"""GPT-2, GPT-NeoX, StarCoder 2, StableLM, Phi, Cohere, BLOOM and MPT in GGUF."""

from __future__ import annotations

from dataclasses import replace

from lmzoo.gguf.form import (
    ENDS,
    LAYER_NORM,
    PRE,
    ROPE,
    SIZES,
    TIED_ENDS,
    Form,
    Settings,
    all_layers,
    all_of,
    attention,
    equal_widths,
    every_nth,
    fused,
    mlp,
    no_windows,
    norms,
)
from lmzoo.gguf.layouts import PlusOne

_BIAS = {"bias": (True,)}


def _no_groups(settings: Settings) -> str | None:
    n_heads, n_kv_heads = settings["n_heads"], settings["n_kv_heads"]
    return None if n_heads == n_kv_heads else f"n_kv_heads={n_kv_heads} must be n_heads={n_heads}"


def _whole_heads(settings: Settings) -> str | None:
    width, rotated = settings["head_dim"], settings["rotary_dim"]
    return None if rotated == width else f"rotary_dim={rotated} must be {width}"


_PLAIN = {"qk_norm": (False,), "head_bias": (False,), "logit_scale": (1.0,)}
_COHERE = {
    "parallel": (True,),
    "gated": (True,),
    "norm_bias": (False,),
    "mlp_bias": (False,),
    "qk_norm": (False,),
    "head_bias": (False,),
    "tie_embeddings": (True,),
    "attention_bias": ("none",),
}
_OLMO = ENDS | attention(neighbors=True) | mlp(gated=True)  # its norms have no weights
_SEQUENCE = ENDS | PRE | attention() | mlp(gated=False)


_FORMS = (
    Form(
        "gpt2",
        "gpt2",
        {
            **ENDS,
            "position_embd.weight": "positions.weight",
            **norms(attn_norm="norm_1", ffn_norm="norm_2"),
            **fused("blocks.{i}.attention."),
            **mlp("blocks.{i}.", gated=False),
        },
        {**SIZES, "feed_forward_length": "d_ff", "attention.head_count": "n_heads"},
        {**_BIAS, "activation": ("gelu_tanh",)},
        norm=LAYER_NORM,
    ),
    Form(
        "starcoder",
        "gpt_neo",
        {**ENDS, "position_embd.weight": "positions.weight", **PRE, **fused(), **mlp(gated=False)},
        {
            **SIZES,
            "feed_forward_length": "d_ff",
            "attention.head_count": "n_heads",
            "attention.head_count_kv": "n_kv_heads",
        },
        {
            "n_kv_heads": (1,),
            "scaled_scores": (True,),
            "attention_bias": ("all",),
            "activation": ("gelu_tanh",),
            "embedding_scale": (1.0,),
        },
        all_layers("full"),
        ("pattern", "window"),
        norm=LAYER_NORM,
    ),
    Form(
        "starcoder2",
        "gpt_neox",
        ENDS | PRE | attention() | mlp(gated=False),
        ROPE,
        {**_BIAS, "parallel_residual": (False,), "rotary_fraction": (1.0,), "activation": ("gelu_tanh",)},
        no_windows,
        ("window",),
        norm=LAYER_NORM,
    ),
    Form(
        "gptneox",
        "gpt_neox",
        ENDS | PRE | fused() | mlp(gated=False),
        {**ROPE, "use_parallel_residual": "parallel_residual"},
        _BIAS,
        all_of(_no_groups, no_windows),
        ("window", "rotary_fraction", "activation"),
        norm=LAYER_NORM,
        output=True,
    ),
    Form(
        "stablelm",
        "gptj",
        ENDS | PRE | attention() | mlp(gated=True),
        {**ROPE, "use_parallel_residual": "parallel"},
        {
            "parallel": (False,),
            "gated": (True,),
            "norm_bias": (True,),
            "mlp_bias": (False,),
            "qk_norm": (False,),
            "head_bias": (False,),
            "logit_scale": (1.0,),
            "attention_bias": ("none", "qkv"),
        },
        norm=LAYER_NORM,
        output=True,
    ),
    Form(
        "phi2",
        "gptj",
        {
            **ENDS,
            "blk.{i}.attn_norm.weight": "blocks.{i}.before.weight",
            "blk.{i}.attn_norm.bias": "blocks.{i}.before.bias",
            **attention("blocks.{i}.inner.0."),
            **mlp("blocks.{i}.inner.1.", gated=False),
        },
        ROPE,
        {
            "parallel": (True,),
            "gated": (False,),
            "norm_bias": (True,),
            "mlp_bias": (True,),
            "qk_norm": (False,),
            "head_bias": (True,),
            "logit_scale": (1.0,),
            "attention_bias": ("all",),
        },
        norm=LAYER_NORM,
    ),
    Form(
        "falcon",
        "gptj",
        {
            **ENDS,
            **{f"blk.{{i}}.attn_norm.{kind}": f"blocks.{{i}}.before.{kind}" for kind in ("weight", "bias")},
            **fused("blocks.{i}.inner.0."),
            **mlp("blocks.{i}.inner.1.", gated=False),
        },
        ROPE,
        {**_PLAIN, "parallel": (True,), "gated": (False,), "activation": ("gelu",), "norm_bias": (True,)}
        | {"mlp_bias": (False,), "attention_bias": ("none",)},
        _whole_heads,
        norm=LAYER_NORM,
    ),
    Form(
        "command-r",
        "gptj",
        {
            **TIED_ENDS,
            "blk.{i}.attn_norm.weight": "blocks.{i}.before.weight",
            **attention("blocks.{i}.inner.0.", neighbors=True),
            **mlp("blocks.{i}.inner.1.", gated=True),
        },
        {**ROPE, "logit_scale": "logit_scale"},
        _COHERE,
        _whole_heads,
        norm=LAYER_NORM,
    ),
    Form(
        "cohere2",
        "gptj",
        {
            **TIED_ENDS,
            "blk.{i}.attn_norm.weight": "blocks.{i}.before.weight",
            **attention("blocks.{i}.inner.0.", neighbors=True),
            **mlp("blocks.{i}.inner.1.", gated=True),
        },
        {**ROPE, "logit_scale": "logit_scale", "attention.sliding_window": "window"},
        _COHERE,
        all_of(_whole_heads, every_nth(4, "window", "nope")),
        ("pattern",),
        norm=LAYER_NORM,
    ),
    Form(
        "olmo",
        "gptj",
        {name: source for name, source in _OLMO.items() if "norm" not in name},
        ROPE,
        {**_PLAIN, "parallel": (False,), "gated": (True,), "mlp_bias": (False,), "attention_bias": ("none",)}
        | {"norm_weight": (False,), "norm_bias": (False,)},
        _whole_heads,
        norm=LAYER_NORM,
    ),
    Form(
        "nemotron",
        "gptj",
        {name: PlusOne(source) if name.endswith("norm.weight") else source for name, source in _SEQUENCE.items()},
        ROPE,
        {**_PLAIN, "parallel": (False,), "gated": (False,), "activation": ("relu2",), "norm_offset": (True,)},
        free=("attention_bias", "mlp_bias"),
        norm=LAYER_NORM,
        rope=("linear",),
    ),
    Form(
        "bloom",
        "alibi",
        {
            **ENDS,
            **{f"token_embd_norm.{kind}": f"embedding_norm.{kind}" for kind in ("weight", "bias")},
            **PRE,
            **fused(),
            **mlp(gated=False),
        },
        {**SIZES, "feed_forward_length": "d_ff", "attention.head_count": "n_heads"},
        {**_BIAS, "positions": ("alibi",), "embedding_norm": (True,), "activation": ("gelu_tanh",)},
        norm=LAYER_NORM,
    ),
    Form(
        "mpt",
        "alibi",
        ENDS | PRE | fused() | mlp(gated=False),
        {**SIZES, "feed_forward_length": "d_ff", "attention.head_count": "n_heads", "attention.max_alibi_bias": 8.0},
        {"bias": (False,), "positions": ("alibi",), "embedding_norm": (False,)},
        free=("activation",),
        norm=LAYER_NORM,
    ),
)
GPT_FORMS = tuple(
    replace(form, rule=all_of(equal_widths, *([form.rule] if form.rule else []))) if form.family == "gptj" else form
    for form in _FORMS
)
