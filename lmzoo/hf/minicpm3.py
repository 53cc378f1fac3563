"""MiniCPM3 in transformers: DeepSeek's latent attention, and the factors of Granite."""

from __future__ import annotations

import math
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unused, refused
from lmzoo.hf.deepseek import V3
from lmzoo.hf.keys import SIZES, SWIGLU
from lmzoo.hf.latent import latent_attention, names_of

_ATTENTION = latent_attention(kv_heads=40)


def _attention(config: Config) -> dict[str, Any]:
    """Returns the heads, their widths, and the factor of the scores, which YaRN raises."""
    found = {**_ATTENTION.settings(Config({"qk_rope_head_dim": 32, **config}))}
    nope, rope = config.value("qk_nope_head_dim", 64), config.value("qk_rope_head_dim", 32)
    value = config.value("v_head_dim", config.value("hidden_size", 2560) // max(1, found["n_heads"]))
    scale = found.pop("sharpness", 1.0) / math.sqrt(max(1, nope + rope))
    return {**found, "attention_scale": scale, "nope_dim": nope, "rope_dim": rope, "v_dim": value}


_WIDTHS = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def _attention_keys(ours: Settings) -> dict[str, Any]:
    sharpness = ours["attention_scale"] * math.sqrt(ours["nope_dim"] + ours["rope_dim"])
    widths = (ours["nope_dim"], ours["rope_dim"], ours["v_dim"])
    return {**_ATTENTION.inverse_of({**ours, "sharpness": sharpness}), **dict(zip(_WIDTHS, widths, strict=True))}


def _factors(config: Config) -> dict[str, Any]:
    """Returns the factors of branches and logits, of which null turns each off."""
    depth, width = math.sqrt(config.layers()), config.value("hidden_size", 2560)
    scale = config.value("scale_depth", 1.4, float) if config.get("scale_depth", 1.4) is not None else depth
    base = config.value("dim_model_base", 256) if config.get("dim_model_base", 256) is not None else width
    if base < 1:
        raise refused("dim_model_base", base, "must be at least 1")
    return {"residual_scale": scale / depth, "logit_divisor": width / base}


def _factors_keys(ours: Settings) -> dict[str, Any]:
    base = round(ours["d_model"] / ours["logit_divisor"])
    return {"scale_depth": ours["residual_scale"] * math.sqrt(ours["n_layers"]), "dim_model_base": base}


MINICPM3 = Architecture(
    model_type="minicpm3",
    classes=("MiniCPM3ForCausalLM",),
    family="granite",
    weights=names_of({**V3, "head.inner.weight": V3["head.weight"]}, halves=True),
    keys={
        **SIZES,
        "intermediate_size": To("d_ff"),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": SWIGLU,
        "kv_lora_rank": To("kv_rank", 256),
        "q_lora_rank": To("q_rank", 768),
        "scale_emb": To("embedding_scale", 12.0),
        "qk_head_dim": Unused(),  # computed from other keys
        "attention_bias": Only(False),
        "mlp_bias": Only(False),
        "tie_word_embeddings": To("tie_embeddings", default=True),
    },
    together=(
        Together((*_ATTENTION.keys, *_WIDTHS, "head_dim"), _attention, _attention_keys),
        Together(("scale_depth", "dim_model_base"), _factors, _factors_keys),
    ),
    fixed={"pattern": "latent"},
)
