"""Nemotron-H in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import (
    MAX_LAYERS,
    Architecture,
    Config,
    Only,
    Same,
    Settings,
    To,
    Together,
    keys_from,
    layer_words,
    refused,
)
from lmzoo.hf.experts import groups, shared_width
from lmzoo.hf.keys import SIZES, SWIGLU, unused, without
from lmzoo.hf.layouts import qkv_rows
from lmzoo.hf.mamba2 import UNLIMITED, mixer
from lmzoo.hf.names import frame, stacked
from lmzoo.hf.weights import Weights

_MIXER = "model.layers.{i}.mixer."
WEIGHTS: Weights = {
    **frame("model.embeddings", "model.norm_f"),
    "blocks.{i}.before.weight": "model.layers.{i}.norm.weight",
    **mixer("blocks.{i}.inner.", _MIXER),
    "blocks.{i}.inner.qkv.weight": qkv_rows(_MIXER),
    "blocks.{i}.inner.out.weight": f"{_MIXER}o_proj.weight",
    "blocks.{i}.inner.up.weight": f"{_MIXER}up_proj.weight",
    "blocks.{i}.inner.down.weight": f"{_MIXER}down_proj.weight",
    "blocks.{i}.inner.router.weight": f"{_MIXER}gate.weight",
    "blocks.{i}.inner.choice_bias": f"{_MIXER}gate.e_score_correction_bias",
    "blocks.{i}.inner.up": stacked(f"{_MIXER}experts.{{e}}.up_proj.weight", f"{_MIXER}experts.up_proj"),
    "blocks.{i}.inner.down": stacked(f"{_MIXER}experts.{{e}}.down_proj.weight", f"{_MIXER}experts.down_proj"),
    "blocks.{i}.inner.shared.up.weight": f"{_MIXER}shared_experts.up_proj.weight",
    "blocks.{i}.inner.shared.down.weight": f"{_MIXER}shared_experts.down_proj.weight",
}
_WORDS = {"linear_attention": "mamba2", "full_attention": "attention", "mlp": "mlp", "moe": "experts"}
_OLD_WORDS = {"mamba": "mamba2", "attention": "attention"}
_LETTERS = {"M": "mamba2", "*": "attention", "-": "mlp", "E": "experts"}


def _pattern(config: Config) -> dict[str, Any]:
    """Returns the layers, from a list of words, or else from a text with a letter for each layer."""
    text = config.value("hybrid_override_pattern", "")
    if config.get("layers_block_type") is not None:
        words = config.value("layers_block_type", list[Any](), list)
        config = Config({**config, "num_hidden_layers": len(words)})
        found = config.words("layers_block_type", {**_WORDS, **_OLD_WORDS})
    elif len(text) > MAX_LAYERS:
        raise refused("hybrid_override_pattern", text, f"must have at most {MAX_LAYERS} letters")
    else:
        found = [_LETTERS.get(letter, "") for letter in text]
    if not found or "" in found:
        raise refused("hybrid_override_pattern", text, f"must be made of {' '.join(_LETTERS)}")
    return {"pattern": " ".join(found), "n_layers": len(found)}


def _pattern_keys(ours: Settings) -> dict[str, Any]:
    return layer_words("layers_block_type", ours["pattern"], _WORDS)


def _widths(config: Config) -> dict[str, Any]:
    """Returns the width of a head of attention, and the heads of Mamba-2 with the width that they fill."""
    width, heads = config.value("head_dim", 128), config.value("mamba_num_heads", 128)
    return {"head_dim": width, "ssm_heads": heads, "d_ssm": heads * config.value("mamba_head_dim", 64)}


def _widths_keys(ours: Settings) -> dict[str, Any]:
    heads = ours["ssm_heads"]
    return {"head_dim": ours["head_dim"], "mamba_num_heads": heads, "mamba_head_dim": ours["d_ssm"] // heads}


_GROUPS = groups(1, 1, 2, settings=("expert_groups", "top_groups", "top_k"))
_SHARED = shared_width("moe_shared_expert_intermediate_size", 7688, one=7688)
_EXPERTS = {
    "moe_intermediate_size": "d_expert",
    "n_routed_experts": "n_experts",
    "routed_scaling_factor": "routed_scale",
    "norm_topk_prob": "normalize",
}


def _experts(config: Config) -> dict[str, Any]:
    """Returns the settings of the experts, if there are any."""
    if "experts" not in _pattern(config)["pattern"]:
        return {}
    latent = config.get("moe_latent_size")
    if latent is not None:
        raise refused("moe_latent_size", latent, "must be null: experts read the features themselves")
    return {
        "d_expert": config.value("moe_intermediate_size", 7688),
        "n_experts": config.value("n_routed_experts", 8),
        "routed_scale": float(config.value("routed_scaling_factor", 1.0, float)),
        "normalize": config.value("norm_topk_prob", True),
        **_GROUPS.settings(config),
        **_SHARED.settings(config),
    }


def _experts_keys(ours: Settings) -> dict[str, Any]:
    if "experts" not in ours["pattern"]:
        return {}
    return {**keys_from(_EXPERTS)(ours), **_GROUPS.inverse_of(ours), **_SHARED.inverse_of(ours)}


NEMOTRON_H = Architecture(
    model_type="nemotron_h",
    classes=("NemotronHForCausalLM",),
    family="nemotron_h",
    weights=WEIGHTS,
    keys={
        **without(SIZES, "num_hidden_layers"),
        "attention_head_dim": Same("head_dim", 128),  # an old name, which transformers ignores
        "num_attention_heads": To("n_heads"),
        "num_key_value_heads": To("n_kv_heads", 8),
        "intermediate_size": To("d_ff"),
        "layer_norm_epsilon": To("norm_eps", 1e-5),
        "mlp_hidden_act": Only("relu2"),
        "mamba_hidden_act": SWIGLU,
        "ssm_state_size": To("d_state", 128),
        "n_groups": To("ssm_groups", 8),
        "conv_kernel": To("d_conv", 4),
        "time_step_min": To("dt_min", 1e-3),
        "tie_word_embeddings": Only(False),
        "time_step_limit": UNLIMITED,
        "sliding_window": Only(None),
        "use_bias": To("ssm_bias", default=False),
        "use_conv_bias": To("ssm_conv_bias", default=True),
        **{f"{part}_bias": Only(False) for part in ("attention", "mlp", "mamba_proj")},
        **unused("n_shared_experts", "moe_shared_expert_overlap", "output_router_logits", "expand", "chunk_size"),
        **unused("residual_in_fp32", "use_mamba_kernels", "mamba_ssm_cache_dtype", "num_logits_to_keep"),
        **unused("time_step_max", "time_step_floor", "time_step_rank", "rescale_prenorm_residual"),
        **unused("num_nextn_predict_layers", "mtp_layers_block_type", "mtp_hybrid_override_pattern"),
        **unused("rms_norm_eps", "norm_eps"),
        **unused("rope_theta", "partial_rotary_factor"),  # its attention has no positions
    },
    together=(
        Together(("layers_block_type", "hybrid_override_pattern", "num_hidden_layers"), _pattern, _pattern_keys),
        Together((*_EXPERTS, "moe_latent_size", *_GROUPS.keys, *_SHARED.keys), _experts, _experts_keys),
        Together(("head_dim", "mamba_num_heads", "mamba_head_dim"), _widths, _widths_keys),
    ),
    aliases={
        "layer_types": "layers_block_type",
        "mamba_n_groups": "n_groups",
        "mamba_d_conv": "conv_kernel",
        "mamba_expand": "expand",
        "mamba_conv_bias": "use_conv_bias",
        "mamba_chunk_size": "chunk_size",
        "mamba_dt_min": "time_step_min",
        "mamba_dt_max": "time_step_max",
        "mamba_dt_limit": "time_step_limit",
        "mamba_dt_init_floor": "time_step_floor",
        "num_local_experts": "n_routed_experts",
    },
    prefixes={"backbone.": "model."},
    buffers=("mtp.*",),
)
