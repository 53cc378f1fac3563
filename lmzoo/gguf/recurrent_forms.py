"""LFM2, Mamba, Mamba-2 and RWKV-7 in GGUF."""

from __future__ import annotations

from lmzoo.gguf.form import (
    ENDS,
    HEAD_NORMS,
    INNER,
    LAYER_NORM,
    PRE,
    ROPE,
    SIZES,
    Form,
    Settings,
    Tensors,
    attention,
    kinds_of,
    mlp,
    norms,
)
from lmzoo.gguf.layouts import Beside, NegativeExp, Shaped
from lmzoo.hf.layouts import Either, Source

_STATE = {**SIZES, "feed_forward_length": 0, "attention.head_count": 0, "ssm.conv_kernel": "d_conv"}
_STATE |= {"ssm.inner_size": "inner", "ssm.state_size": "d_state"}


def _mixer(**tensors: Source) -> Tensors:
    """Returns the tensors of a mixer of Mamba, and of its frame."""
    names = {f"blk.{{i}}.{name.replace('__', '.')}": source for name, source in tensors.items()}
    return {**ENDS, "blk.{i}.attn_norm.weight": "blocks.{i}.before.weight", **names}


def _inner(name: str) -> str:
    return f"blocks.{{i}}.inner.{name}"


_RWKV = {
    **ENDS,
    **{f"token_embd_norm.{kind}": f"norm_0.{kind}" for kind in ("weight", "bias")},
    **norms(attn_norm="0.before", attn_norm_2="1.before", time_mix_ln="0.inner.norm"),
    **{f"blk.{{i}}.time_mix_{name}.weight": f"{INNER}{name}" for name in ("k_k", "k_a", "r_k")},
    **{f"blk.{{i}}.time_mix_{n}.weight": f"{INNER}{n}.weight" for n in ("key", "value", "receptance")},
    "blk.{i}.time_mix_output.weight": f"{INNER}out.weight",
    "blk.{i}.time_mix_lerp_fused.weight": Shaped(f"{INNER}shift.mix", (6, 1, 1, -1)),
    **{
        f"blk.{{i}}.time_mix_{letter}{digit}.weight": f"{INNER}{name}.{part}"
        for letter, name in (("w", "decay"), ("a", "rate"), ("g", "gate"))
        for digit, part in enumerate(("bias", "down.weight", "up.weight"))
        if (letter, digit) != ("g", 0)
    },
    **{  # llama.cpp reads them in the first layer, too, and does not use them there
        f"blk.{{i}}.time_mix_v{digit}.weight": Either((f"{INNER}residual.{part}", f"{INNER}rate.{part}"))
        for digit, part in enumerate(("bias", "down.weight", "up.weight"))
    },
    "blk.{i}.channel_mix_lerp_k.weight": Shaped("blocks.{i}.1.inner.shift.mix", (-1,)),
    "blk.{i}.channel_mix_key.weight": "blocks.{i}.1.inner.up.weight",
    "blk.{i}.channel_mix_value.weight": "blocks.{i}.1.inner.down.weight",
}


def kv_heads(settings: Settings) -> list[int]:
    """Returns the heads of keys of each layer; convolutions have none."""
    return [settings["n_kv_heads"] if kind == "attention" else 0 for kind in kinds_of(settings)]


def _same_eps(settings: Settings) -> str | None:
    eps = settings["norm_eps"], settings["select_eps"]
    return f"select_eps={eps[1]} must be norm_eps={eps[0]}" if eps[1] not in (None, eps[0]) else None


_CONV = "blk.{i}.shortconv"
LFM2: Tensors = {
    "token_embd.weight": "tokens.weight",
    "token_embd_norm.weight": "norm.weight",  # llama.cpp's name of the norm before the head
    "output.weight": "head.weight",
    **PRE,
    **attention(),
    **HEAD_NORMS,
    "blk.{i}.attn_output.weight": Beside(f"{INNER}out.weight", f"{INNER}qkv.weight"),
    f"{_CONV}.conv.weight": f"{INNER}filters",
    f"{_CONV}.in_proj.weight": f"{INNER}in_proj.weight",
    f"{_CONV}.out_proj.weight": Beside(f"{INNER}out.weight", f"{INNER}filters"),
    **mlp(gated=True),
}
RECURRENT_FORMS = (
    Form(
        "lfm2",
        "lfm2",
        LFM2,
        {**ROPE, "attention.head_count_kv": kv_heads, "shortconv.l_cache": "d_conv"},
        {"feed_forward": ("mlp",)},
        free=("pattern",),
    ),
    Form(
        "mamba",
        "mamba",
        _mixer(
            ssm_in__weight=_inner("in_proj.weight"),
            ssm_conv1d__weight=_inner("conv.weight"),
            ssm_conv1d__bias=_inner("conv.bias"),
            ssm_x__weight=_inner("x_proj.weight"),
            ssm_dt__weight=_inner("dt_proj.weight"),
            ssm_dt__bias=_inner("dt_bias"),
            ssm_a=NegativeExp(_inner("A_log")),
            ssm_d=_inner("D"),
            ssm_out__weight=_inner("out_proj.weight"),
        ),
        {**_STATE, "ssm.time_step_rank": "dt_rank", "ssm.dt_b_c_rms": "select_norms"},
        {"expand": (2,), "negative_eigenvalues": (False,)},
        _same_eps,
        ("select_eps",),
    ),
    Form(
        "mamba2",
        "mamba2",
        _mixer(
            ssm_in__weight=_inner("in_proj.weight"),
            ssm_conv1d__weight=_inner("conv.weight"),
            ssm_conv1d__bias=_inner("conv.bias"),
            ssm_dt__bias=_inner("dt_bias"),
            ssm_a=Shaped(NegativeExp(_inner("A_log")), (-1, 1)),
            ssm_d=Shaped(_inner("D"), (-1, 1)),
            ssm_norm__weight=Shaped(_inner("norm_weight"), ("n_groups", -1)),
            ssm_out__weight=_inner("out_proj.weight"),
        ),
        {**_STATE, "ssm.time_step_rank": "state_heads", "ssm.group_count": "n_groups"},
        {"expand": (2,)},
    ),
    Form(
        "rwkv7",
        "rwkv7",
        _RWKV,
        {
            **SIZES,
            "feed_forward_length": "d_ff",
            "attention.head_count": 0,
            "wkv.head_size": "head_dim",
            "attention.decay_lora_rank": "decay_rank",
            "attention.iclr_lora_rank": "rate_rank",
            "attention.value_residual_mix_lora_rank": "value_rank",
            "attention.gate_lora_rank": "gate_rank",
        },
        norm=LAYER_NORM,
        output=True,
    ),
)
