"""LFM2 with experts, Qwen3-Next and Kimi Linear in GGUF: layers of two kinds, and experts."""

from __future__ import annotations

from lmzoo.gguf.expert_forms import (
    EXPERTS_OF_DEEPSEEK,
    FREE,
    LATENT_SIZES,
    MANY,
    SIGMOID,
    experts,
    latent,
    one_eps,
    shared,
)
from lmzoo.gguf.form import ENDS, HEAD_NORMS, INNER, PRE, ROPE, SIZES, Form, Settings, Tensors, all_of, kinds_of, norms
from lmzoo.gguf.layouts import Beside, ByHead, NegativeExp, Part, PlusOne, Shaped
from lmzoo.gguf.recurrent_forms import LFM2, kv_heads
from lmzoo.hf.layouts import Either, Source

_MLP = "blocks.{i}.1.inner."


def _dense_first(settings: Settings) -> str | None:
    """Says if a layer without experts comes after one with experts."""
    words = kinds_of(settings, "feed_forward")
    ordered = words == sorted(words, reverse=True)
    return None if ordered else f"feed_forward={settings['feed_forward']!r} must have mlp in its first layers alone"


def _dense(settings: Settings) -> int:
    return kinds_of(settings, "feed_forward").count("mlp")


def _all_experts(settings: Settings) -> str | None:
    words = {*kinds_of(settings, "feed_forward")}
    return None if words == {"experts"} else f"feed_forward={settings['feed_forward']!r} must be experts"


def _interval(settings: Settings) -> int:
    """Returns n, if each n-th layer has attention."""
    return [*kinds_of(settings), "attention"].index("attention") + 1


def _regular(settings: Settings) -> str | None:
    kinds, every = kinds_of(settings), _interval(settings)
    wanted = ["delta" if (layer + 1) % every else "attention" for layer in range(len(kinds))]
    return None if kinds == wanted else f"pattern={settings['pattern']!r} must have attention in each n-th layer"


def _square(settings: Settings) -> str | None:
    """Says if the states of the delta rule are not square, which llama.cpp asks for."""
    key, value = settings["key_dim"], settings["value_dim"]
    return None if key == value else f"value_dim={value} must be key_dim={key}"


def _equal_heads(settings: Settings) -> str | None:
    heads, kda = settings["n_heads"], settings["kda_heads"]
    return None if heads == kda else f"kda_heads={kda} must be n_heads={heads}"


def _kimi_layers(settings: Settings) -> str | None:
    others = {*kinds_of(settings)} - {"kda", "nope"}
    return f"pattern={settings['pattern']!r} must have only kda or nope" if others else None


_DELTA = f"{INNER}conv.weight"  # of layers with the delta rule


def _delta(source: Source) -> Beside:
    """Returns a tensor of layers with the delta rule."""
    return Beside(source, _DELTA)


def _attention(source: Source) -> Beside:
    """Returns a tensor of layers with attention."""
    return Beside(source, _DELTA, absent=True)


_QKV = ("n_heads", "n_kv_heads", "n_kv_heads")
_QUERIES = Part(f"{INNER}qkv.weight", 0, _QKV)
_NEXT: Tensors = {
    **{name: PlusOne(source) if name == "output_norm.weight" else source for name, source in ENDS.items()},
    **{
        name: PlusOne(source)
        for name, source in (norms(attn_norm="0.before", post_attention_norm="1.before") | HEAD_NORMS).items()
    },
    "blk.{i}.attn_q.weight": _attention(ByHead((_QUERIES, f"{INNER}gate.weight"), "n_heads")),
    "blk.{i}.attn_k.weight": _attention(Part(f"{INNER}qkv.weight", 1, _QKV)),
    "blk.{i}.attn_v.weight": _attention(Part(f"{INNER}qkv.weight", 2, _QKV)),
    "blk.{i}.attn_output.weight": _attention(f"{INNER}out.weight"),
    "blk.{i}.attn_qkv.weight": _delta(f"{INNER}qkv.weight"),
    "blk.{i}.attn_gate.weight": _delta(f"{INNER}gate.weight"),
    "blk.{i}.ssm_ba.weight": ByHead((f"{INNER}beta.weight", f"{INNER}decay.weight"), "delta_key_heads"),
    "blk.{i}.ssm_conv1d.weight": _DELTA,
    "blk.{i}.ssm_a": NegativeExp(f"{INNER}A_log"),
    "blk.{i}.ssm_dt.bias": f"{INNER}dt_bias",
    "blk.{i}.ssm_norm.weight": f"{INNER}norm.weight",
    "blk.{i}.ssm_out.weight": _delta(f"{INNER}out.weight"),
    **experts(),
    **shared(),
    "blk.{i}.ffn_gate_inp_shexp.weight": f"{_MLP}shared_gate.weight",
}
_CONV = (1, "kda_inner", 1, "d_conv")
_HEAD = (1, 1, "kda_heads", 1)
_LATENT = latent(f"{INNER}q.weight", f"{INNER}kv_down.weight")  # not rotated
_KIMI: Tensors = {
    **ENDS,
    **PRE,
    **EXPERTS_OF_DEEPSEEK,
    **_LATENT,
    **{f"blk.{{i}}.attn_{part}.weight": Part(f"{INNER}qkv.weight", n, (1, 1, 1)) for n, part in enumerate("kv", 1)},
    "blk.{i}.attn_q.weight": Either((Part(f"{INNER}qkv.weight", 0, (1, 1, 1)), _LATENT["blk.{i}.attn_q.weight"])),
    **{
        f"blk.{{i}}.ssm_conv1d_{part}.weight": Shaped(Part(_DELTA, n, (1, 1, 1)), _CONV) for n, part in enumerate("qkv")
    },
    "blk.{i}.ssm_f_a.weight": f"{INNER}decay_down.weight",
    "blk.{i}.ssm_f_b.weight": f"{INNER}decay_up.weight",
    "blk.{i}.ssm_g_a.weight": f"{INNER}gate_down.weight",
    "blk.{i}.ssm_g_b.weight": f"{INNER}gate_up.weight",
    "blk.{i}.ssm_beta.weight": f"{INNER}beta.weight",
    "blk.{i}.ssm_a": Shaped(NegativeExp(f"{INNER}A_log"), _HEAD),
    "blk.{i}.ssm_dt.bias": f"{INNER}dt_bias",
    "blk.{i}.ssm_norm.weight": f"{INNER}norm.weight",
}


def _latent_heads(settings: Settings) -> list[int]:
    """Returns the heads of keys of each layer: one, the cached features, and none of the delta rule."""
    return [int(kind != "kda") for kind in kinds_of(settings)]


HYBRID_FORMS = (
    Form(
        "lfm2moe",
        "lfm2",
        {
            **{name: source for name, source in LFM2.items() if name != "output.weight"},
            **experts(),
            "blk.{i}.exp_probs_b.bias": f"{_MLP}choice_bias",
        },
        {
            **ROPE,
            "attention.head_count_kv": kv_heads,
            "shortconv.l_cache": "d_conv",
            "expert_count": "n_experts",
            "expert_used_count": "top_k",
            "expert_feed_forward_length": "d_expert",
            "leading_dense_block_count": _dense,
            "expert_gating_func": SIGMOID,
        },
        {"normalize": (True,), "routed_scale": (1.0,), "balance_bias": (True,), "tie_embeddings": (True,)},
        _dense_first,
        ("pattern", "feed_forward"),
    ),
    Form(
        "qwen3next",
        "qwen3_next",
        _NEXT,
        {
            **ROPE,
            "full_attention_interval": _interval,
            "expert_count": "n_experts",
            "expert_used_count": "top_k",
            "expert_feed_forward_length": "d_expert",
            "expert_shared_feed_forward_length": "d_shared",
            "ssm.conv_kernel": "d_conv",
            "ssm.state_size": "key_dim",
            "ssm.group_count": "delta_key_heads",
            "ssm.time_step_rank": "delta_heads",
            "ssm.inner_size": lambda settings: settings["delta_heads"] * settings["value_dim"],
        },
        {"normalize": (True,)},
        all_of(_all_experts, _regular, _square),
        ("pattern", "feed_forward", "rotary_fraction", "value_dim"),
    ),
    Form(
        "kimi-linear",
        "deepseek",
        _KIMI,
        {
            **SIZES,
            **MANY,
            **LATENT_SIZES,
            "attention.head_count_kv": _latent_heads,
            "kda.head_dim": "kda_dim",
            "ssm.conv_kernel": "d_conv",
        },
        {"n_groups": (1,), "sharpness": (1.0,), "sigmoid": (True,), "normalize": (True,)},
        all_of(one_eps, _kimi_layers, _equal_heads),
        (*FREE, "nope_dim", "latent_eps", "kda_heads", "rope_theta"),
    ),
)
