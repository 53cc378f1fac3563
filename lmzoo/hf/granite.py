"""Granite in transformers: plain, with experts (GraniteMoE), and with Mamba-2 (Granite 4); and HyperCLOVA X."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import (
    Architecture,
    Config,
    Key,
    Only,
    Settings,
    To,
    Together,
    Unread,
    Unused,
    keys_from,
    layer_words,
    refused,
)
from lmzoo.hf.bamba import WEIGHTS as BAMBA
from lmzoo.hf.keys import ATTENTION, SWIGLU, plain_heads, without
from lmzoo.hf.layouts import Either, Source
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.mamba2 import LIMITS, MIXER_HEADS, MIXER_KEYS
from lmzoo.hf.names import outside
from lmzoo.hf.rotary import ROPE, rope
from lmzoo.hf.weights import Weights

_LAYER, _MOE, _SHARED = "model.layers.{i}.", "model.layers.{i}.block_sparse_moe.", "model.layers.{i}.shared_mlp."


def _moe(ours: str) -> dict[str, Source]:
    """Returns the names of experts; the hub has older ones, which transformers 5 renamed."""
    return {
        f"{ours}router.weight": Either((f"{_MOE}router.layer.weight", f"{_MOE}router.weight")),
        f"{ours}up": Either((f"{_MOE}input_linear.weight", f"{_MOE}experts.gate_up_proj")),
        f"{ours}down": Either((f"{_MOE}output_linear.weight", f"{_MOE}experts.down_proj")),
    }


def _plain(ours: str) -> dict[str, Source]:
    """Returns the names of the feed-forward layer beside the experts, or in place of them."""
    return {f"{ours}up.weight": f"{_SHARED}input_linear.weight", f"{ours}down.weight": f"{_SHARED}output_linear.weight"}


_MLP = "blocks.{i}.1.inner."
PLAIN: Weights = {**LLAMA, "head.inner.weight": LLAMA["head.weight"]}
MOE: Weights = {
    **outside(PLAIN, _MLP),
    **_moe(_MLP),
    **_moe(f"{_MLP}0."),
    **_plain(f"{_MLP}1."),
}
HYBRID: Weights = {
    **MOE,
    **_plain(_MLP),
    **{name: source for name, source in BAMBA.items() if name.startswith("blocks.{i}.0.inner.") and name not in LLAMA},
}

KEYS: dict[str, Key] = {
    **ATTENTION,
    "hidden_act": SWIGLU,
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "attention_bias": To("attention_bias", default=False),
    "embedding_multiplier": To("embedding_scale", 1.0),
    "attention_multiplier": To("attention_scale", 1.0),
    "residual_multiplier": To("residual_scale", 1.0),
    "logits_scaling": To("logit_divisor", 1.0),
}
_FACTORS = ("attention_multiplier", "logits_scaling")
GRANITE = Architecture(
    model_type="granite",
    classes=("GraniteForCausalLM",),
    family="granite",
    weights=PLAIN,
    keys={**KEYS, "mlp_bias": Only(False)},
    together=(rope(),),
)


def _factors(config: Config) -> dict[str, Any]:
    """Returns the factor of scores, and the divisor of logits, of which the key is the reciprocal."""
    width = config.value("hidden_size", 4096) // max(1, config.value("num_attention_heads", 32))
    factor = config.value("logits_scaling", 1.0, float)
    if factor <= 0:
        raise refused("logits_scaling", factor, "must be above 0")
    if config.value("head_dim", width) < 1:
        raise refused("hidden_size", config.get("hidden_size"), "must be at least num_attention_heads")
    scale = config.value("attention_multiplier", config.value("head_dim", width) ** -0.5, float)
    return {"attention_scale": float(scale), "logit_divisor": 1 / factor}


def _factors_keys(ours: Settings) -> dict[str, Any]:
    return {"attention_multiplier": ours["attention_scale"], "logits_scaling": 1 / ours["logit_divisor"]}


HYPERCLOVAX = Architecture(
    model_type="hyperclovax",
    classes=("HyperCLOVAXForCausalLM",),
    family="granite",
    weights={
        **PLAIN,
        **{f"blocks.{{i}}.{n}.after.0.weight": f"{_LAYER}post_norm{n + 1}.weight" for n in range(2)},
    },
    keys={
        **without(KEYS, *_FACTORS),
        "mlp_bias": Only(False),
        "use_post_norm": To("post_norms", default=True),
    },
    together=(rope(), plain_heads(4096, 32), Together(_FACTORS, _factors, _factors_keys)),
)
MOE_KEYS: dict[str, Key] = {
    **KEYS,
    "num_local_experts": To("n_experts", 8),
    "num_experts_per_tok": To("top_k", 2),
    "output_router_logits": Unused(),
    "router_aux_loss_coef": Unused(),
}


def _some_experts(config: Config) -> dict[str, Any]:
    return {"n_experts": config.at_least("num_local_experts", 8)}


GRANITEMOE = Architecture(
    model_type="granitemoe",
    classes=("GraniteMoeForCausalLM",),
    family="granite",
    weights=MOE,
    keys=without(MOE_KEYS, "num_local_experts"),
    together=(
        rope(),
        Together(("num_local_experts",), _some_experts, keys_from({"num_local_experts": "n_experts"})),
    ),
)
GRANITEMOESHARED = Architecture(
    model_type="granitemoeshared",
    classes=("GraniteMoeSharedForCausalLM",),
    family="granite",
    weights=MOE,
    keys={**GRANITEMOE.keys, "shared_intermediate_size": To("d_shared", 0)},
    together=GRANITEMOE.together,
)


def _pattern(config: Config) -> dict[str, Any]:
    """Returns the mixers, by default all Mamba-2, and the rotary positions of attention, if it has any."""
    positions = config.get("position_embedding_type")
    if positions not in (None, "nope", "rope"):
        raise refused("position_embedding_type", positions, "must be 'rope', or null for none")
    attention = "rope" if positions == "rope" else "nope"
    words = ["mamba2"] * config.layers()
    if config.get("layer_types") is not None:
        known = {"full_attention": attention, "attention": attention, "linear_attention": "mamba2", "mamba": "mamba2"}
        words = config.words("layer_types", known)
    if attention not in words:
        raise refused("layer_types", config.get("layer_types"), "must have attention: transformers cannot run without")
    return {**(rope().settings(config) if positions == "rope" else {}), "pattern": " ".join(words)}


def _widths(config: Config) -> dict[str, Any]:
    """Returns the widths of the feed-forward layers: without experts, the shared one is the only one."""
    if config.value("num_local_experts", 8) < 1:
        return {"d_ff": config.value("shared_intermediate_size", 1024)}
    return {
        "d_ff": config.value("intermediate_size", 11008),
        "d_shared": config.at_least("shared_intermediate_size", 1024),
        "n_experts": config.value("num_local_experts", 8),
        "top_k": config.value("num_experts_per_tok", 2),
    }


def _pattern_keys(ours: Settings) -> dict[str, Any]:
    attention = "rope" if "rope" in ours["pattern"] else "nope"
    layers = layer_words("layer_types", ours["pattern"], {"attention": attention, "mamba": "mamba2"})
    return {**layers, "position_embedding_type": attention, **(rope().inverse_of(ours) if attention == "rope" else {})}


def _widths_keys(ours: Settings) -> dict[str, Any]:
    if not ours["n_experts"]:
        return {"num_local_experts": 0, "shared_intermediate_size": ours["d_ff"]}
    return keys_from(_WIDTHS)(ours)


_WIDTHS = {
    "num_local_experts": "n_experts",
    "num_experts_per_tok": "top_k",
    "intermediate_size": "d_ff",
    "shared_intermediate_size": "d_shared",
}
GRANITEMOEHYBRID = Architecture(
    model_type="granitemoehybrid",
    classes=("GraniteMoeHybridForCausalLM",),
    family="granite",
    weights=HYBRID,
    keys={
        **without(MOE_KEYS, *_WIDTHS),
        **MIXER_KEYS,
        "normalization_function": Unread("rmsnorm"),
        "init_method": Unused(),
    },
    together=(
        Together((*ROPE, "layer_types", "position_embedding_type"), _pattern, _pattern_keys),
        Together((*_WIDTHS,), _widths, _widths_keys),
        MIXER_HEADS,
        LIMITS,
    ),
    aliases={"layers_block_type": "layer_types"},
)
