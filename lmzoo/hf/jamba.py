"""Jamba in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, Settings, To, Together, Unread, Unused, refused
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.mamba import mixer, step_rank
from lmzoo.hf.names import experts, gated
from lmzoo.hf.weights import Weights

_LAYER, _MAMBA, _MLP = "model.layers.{i}.", "model.layers.{i}.mamba.", "model.layers.{i}.feed_forward."
WEIGHTS: Weights = {
    **LLAMA,
    **mixer("blocks.{i}.0.inner.", _MAMBA),
    **{
        f"blocks.{{i}}.0.inner.select_norms.{n}.weight": f"{_MAMBA}{part}_layernorm.weight"
        for n, part in enumerate(("dt", "b", "c"))
    },
    "blocks.{i}.1.before.weight": f"{_LAYER}pre_ff_layernorm.weight",
    **gated("blocks.{i}.1.inner.", _MLP),
    "blocks.{i}.1.inner.router.weight": f"{_MLP}router.weight",
    **experts(f"{_MLP}experts."),
    "norm.weight": "model.final_layernorm.weight",
}


def _every(config: Config, what: str, period: int, offset: int) -> list[bool]:
    """Returns which layers have attention, or experts: one in each period, at this offset."""
    period, offset = config.value(f"{what}_layer_period", period), config.value(f"{what}_layer_offset", offset)
    if not 0 <= offset < period:
        raise refused(f"{what}_layer_offset", offset, f"must be from 0 to {what}_layer_period - 1 = {period - 1}")
    return [layer % period == offset for layer in range(config.layers())]


def _pattern(config: Config) -> dict[str, Any]:
    """Returns the layers. A model of one expert has plain feed-forward layers."""
    n_experts, top_k = config.value("num_experts", 16), config.value("num_experts_per_tok", 2)
    has_attention, has_experts = _every(config, "attn", 8, 4), _every(config, "expert", 2, 1)
    mixers = ["nope" if has else "mamba" for has in has_attention]
    if n_experts <= 1 or not any(has_experts):
        return {"pattern": " ".join(mixers)}
    words = [f"{mixer}+experts" if has else mixer for mixer, has in zip(mixers, has_experts, strict=True)]
    return {"pattern": " ".join(words), "n_experts": n_experts, "top_k": top_k}


def _pattern_keys(ours: Settings) -> dict[str, Any]:
    words = ours["pattern"]
    has_experts = [layer for layer, word in enumerate(words) if word.endswith("+experts")]
    found = {"num_experts": 1}
    if has_experts:
        found = {"num_experts": ours["n_experts"], "num_experts_per_tok": ours["top_k"]}
    has_attention = [layer for layer, word in enumerate(words) if word.startswith("nope")]
    return {**found, **_period("attn", has_attention, len(words)), **_period("expert", has_experts, len(words))}


def _period(what: str, layers: list[int], n_layers: int) -> dict[str, int]:
    """Returns the period and the offset of these layers, if they have one."""
    if not layers:
        period, offset = n_layers + 1, n_layers
    else:
        period, offset = layers[1] - layers[0] if len(layers) > 1 else n_layers, layers[0]
    return {f"{what}_layer_period": period, f"{what}_layer_offset": offset}


KEYS: dict[str, Key] = {
    **ATTENTION,
    "max_position_embeddings": To("context_length", 262144),
    "num_key_value_heads": To("n_kv_heads", 8),
    "hidden_act": SWIGLU,
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "mamba_d_state": To("d_state", 16),
    "mamba_d_conv": To("d_conv", 4),
    "mamba_expand": To("expand", 2),
    "mamba_conv_bias": To("ssm_conv_bias", default=True),
    "mamba_proj_bias": To("ssm_bias", default=False),
    "sliding_window": Only(None),
    "mamba_inner_layernorms": Unread(True),
    "n_ctx": Unused(),
    **unused("use_mamba_kernels", "use_mambapy", "use_associative_scan", "num_logits_to_keep"),
    **unused("output_router_logits", "router_aux_loss_coef", "calc_logits_for_entire_prompt"),
}
JAMBA = Architecture(
    model_type="jamba",
    classes=("JambaForCausalLM",),
    family="hybrid",
    weights=WEIGHTS,
    keys=KEYS,
    together=(
        Together(
            (
                *("attn_layer_period", "attn_layer_offset", "expert_layer_period", "expert_layer_offset"),
                *("num_experts", "num_experts_per_tok"),
            ),
            _pattern,
            _pattern_keys,
        ),
        step_rank("mamba_dt_rank"),
    ),
    aliases={"num_local_experts": "num_experts"},
    fixed={"select_norm": True, "normalize": False},
)
