"""GPT-2, GPT-NeoX, StarCoder 2, StableLM, Phi, Cohere, BLOOM and MPT in GGUF."""

from __future__ import annotations

from lmzoo.gguf.form import (
    ENDS,
    LAYER_NORM,
    PRE,
    ROPE,
    SIZES,
    TIED_ENDS,
    Form,
    Settings,
    all_of,
    attention,
    fused,
    mlp,
    no_windows,
    norms,
)

_BIAS = {"bias": (True,)}


def _no_groups(settings: Settings) -> str | None:
    n_heads, n_kv_heads = settings["n_heads"], settings["n_kv_heads"]
    return None if n_heads == n_kv_heads else f"n_kv_heads={n_kv_heads} must be n_heads={n_heads}"


GPT_FORMS = (
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
        "command-r",
        "gptj",
        {
            **TIED_ENDS,
            "blk.{i}.attn_norm.weight": "blocks.{i}.before.weight",
            **attention("blocks.{i}.inner.0.", neighbors=True),
            **mlp("blocks.{i}.inner.1.", gated=True),
        },
        {**ROPE, "logit_scale": "logit_scale"},
        {
            "parallel": (True,),
            "gated": (True,),
            "norm_bias": (False,),
            "mlp_bias": (False,),
            "qk_norm": (False,),
            "head_bias": (False,),
            "tie_embeddings": (True,),
            "attention_bias": ("none",),
        },
        lambda s: None if s["rotary_dim"] == s["head_dim"] else f"rotary_dim={s['rotary_dim']} must be {s['head_dim']}",
        norm=LAYER_NORM,
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
