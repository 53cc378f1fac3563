"""Falcon-H1 in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together, refused
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.mamba2 import LIMITS, MIXER_KEYS, mamba_heads, mixer
from lmzoo.hf.names import gated
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_LAYER = "model.layers.{i}."
_ATTENTION = ("qkv.weight", "out.weight")
WEIGHTS: Weights = {
    "tokens.weight": LLAMA["tokens.weight"],
    "blocks.{i}.0.before.weight": LLAMA["blocks.{i}.0.before.weight"],
    **{f"blocks.{{i}}.0.inner.0.0.{name}": LLAMA[f"blocks.{{i}}.0.inner.{name}"] for name in _ATTENTION},
    **mixer("blocks.{i}.0.inner.1.0.", f"{_LAYER}mamba."),
    "blocks.{i}.1.before.weight": f"{_LAYER}pre_ff_layernorm.weight",
    **gated("blocks.{i}.1.inner.", f"{_LAYER}feed_forward."),
    "norm.weight": "model.final_layernorm.weight",
    "head.inner.weight": LLAMA["head.weight"],
}


def _inner(config: Config) -> dict[str, Any]:
    """Returns the inner width of Mamba-2, which its heads fill."""
    inner = config.value("mamba_expand", 2) * config.value("hidden_size", 4096)
    if config.get("mamba_d_ssm", 1024) is not None:
        inner = config.value("mamba_d_ssm", 1024)
    return {"d_ssm": inner, "ssm_heads": mamba_heads(config, inner, f"the inner width, {inner}")}


def _inner_keys(ours: Settings) -> dict[str, Any]:
    inner, heads = ours["d_ssm"], ours["ssm_heads"]
    return {"mamba_d_ssm": inner, "mamba_n_heads": heads, "mamba_d_head": inner // heads}


def _factors(key: str, names: tuple[str, ...]) -> Together:
    """Returns the meaning of a list of multipliers, all 1 if it is missing."""

    def settings(config: Config) -> dict[str, Any]:
        found = config.value(key, [1.0] * len(names), list)
        if len(found) != len(names) or any(type(factor) not in (int, float) for factor in found):
            raise refused(key, found, f"must be {len(names)} numbers")
        return dict(zip(names, map(float, found), strict=True))

    return Together((key,), settings, lambda ours: {key: [ours[name] for name in names]})


def _norm(config: Config) -> dict[str, Any]:
    """Returns whether the output of Mamba-2 is normalized before or after the gate."""
    where = "before" if config.value("mamba_norm_before_gate", True) else "after"
    return {"ssm_norm": where if config.value("mamba_rms_norm", False) else "none"}


def _norm_keys(ours: Settings) -> dict[str, Any]:
    return {"mamba_rms_norm": ours["ssm_norm"] != "none", "mamba_norm_before_gate": ours["ssm_norm"] == "before"}


MULTIPLIERS: dict[str, Key] = {
    "embedding_multiplier": To("embedding_scale", 1.0),
    "lm_head_multiplier": To("logit_scale", 1.0),
    "key_multiplier": To("key_scale", 1.0),
    "attention_in_multiplier": To("attention_in_scale", 1.0),
    "attention_out_multiplier": To("attention_out_scale", 1.0),
    "ssm_in_multiplier": To("ssm_in_scale", 1.0),
    "ssm_out_multiplier": To("ssm_out_scale", 1.0),
}
FALCON_H1 = Architecture(
    model_type="falcon_h1",
    classes=("FalconH1ForCausalLM",),
    family="falcon_h1",
    weights=WEIGHTS,
    keys={
        **ATTENTION,
        **MULTIPLIERS,
        **MIXER_KEYS,
        **{f"{part}_bias": Only(False) for part in ("attention", "mlp", "mamba_proj", "projectors")},
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", None),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": SWIGLU,
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "mamba_use_mlp": Only(True),
        "attn_layer_indices": Only(None),
        **unused("num_logits_to_keep", "mlp_expansion_factor"),
    },
    together=(
        *(rope(), LIMITS),
        Together(("mamba_d_ssm", "mamba_expand", "mamba_n_heads", "mamba_d_head"), _inner, _inner_keys),
        Together(("mamba_rms_norm", "mamba_norm_before_gate"), _norm, _norm_keys),
        _factors("mlp_multipliers", ("mlp_gate_scale", "mlp_out_scale")),
        _factors("ssm_multipliers", tuple(f"ssm_{part}_scale" for part in ("gate", "x", "b", "c", "dt"))),
    ),
)
