"""Qwen3-Next and Qwen3.5 (text, with experts or without) in transformers."""

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
    refused,
)
from lmzoo.hf.gated_deltanet import SIZES as DELTA_SIZES
from lmzoo.hf.keys import ATTENTION, SWIGLU, without
from lmzoo.hf.layer_types import layer_types
from lmzoo.hf.layouts import Either, PartByHead, Rows, Squeezed
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.names import experts, gated, outside
from lmzoo.hf.rotary import ROPE, rope, with_parameters
from lmzoo.hf.weights import Weights

_ATTENTION, _DELTA, _MLP = "model.layers.{i}.self_attn.", "model.layers.{i}.linear_attn.", "model.layers.{i}.mlp."


def _sizes(config: Config) -> dict[str, int]:
    """Returns the sizes of the delta rule and of the heads of attention."""
    sizes = {
        "delta_heads": config.value("linear_num_value_heads", 32),
        "delta_key_heads": config.value("linear_num_key_heads", 16),
        "key_dim": config.value("linear_key_head_dim", 128),
        "value_dim": config.value("linear_value_head_dim", 128),
        "head_dim": config.value("head_dim", 256),
    }
    if sizes["delta_key_heads"] < 1 or sizes["delta_heads"] % sizes["delta_key_heads"]:
        raise refused("linear_num_key_heads", sizes["delta_key_heads"], "must divide linear_num_value_heads")
    return sizes


# The gates of attention follow the query of each head.
_Q, _GATE = (PartByHead(f"{_ATTENTION}q_proj.weight", "n_heads", which) for which in (0, 1))
_QKV = Rows(
    (_Q, f"{_ATTENTION}k_proj.weight", f"{_ATTENTION}v_proj.weight"), shares=("n_heads", "n_kv_heads", "n_kv_heads")
)
# Of Qwen3.5, which has a projection for each part of the delta rule but q, k and v.
SPLIT: Weights = {
    **outside(LLAMA, ".0.inner."),
    "blocks.{i}.0.inner.qkv.weight": Either((_QKV, f"{_DELTA}in_proj_qkv.weight")),
    "blocks.{i}.0.inner.gate.weight": Either((_GATE, f"{_DELTA}in_proj_z.weight")),
    "blocks.{i}.0.inner.q_norm.weight": f"{_ATTENTION}q_norm.weight",
    "blocks.{i}.0.inner.k_norm.weight": f"{_ATTENTION}k_norm.weight",
    "blocks.{i}.0.inner.out.weight": Either((f"{_ATTENTION}o_proj.weight", f"{_DELTA}out_proj.weight")),
    "blocks.{i}.0.inner.conv.weight": Squeezed(f"{_DELTA}conv1d.weight", axis=1),
    "blocks.{i}.0.inner.beta.weight": f"{_DELTA}in_proj_b.weight",
    "blocks.{i}.0.inner.decay.weight": f"{_DELTA}in_proj_a.weight",
    "blocks.{i}.0.inner.A_log": f"{_DELTA}A_log",
    "blocks.{i}.0.inner.dt_bias": f"{_DELTA}dt_bias",
    "blocks.{i}.0.inner.norm.weight": f"{_DELTA}norm.weight",
}


EXPERTS: Weights = {
    **experts(f"{_MLP}experts."),
    "blocks.{i}.1.inner.router.weight": f"{_MLP}gate.weight",
    **gated("blocks.{i}.1.inner.shared.", f"{_MLP}shared_expert."),
    "blocks.{i}.1.inner.shared_gate.weight": f"{_MLP}shared_expert_gate.weight",
}


def _fused(config: Config) -> Weights:
    """Returns the names of Qwen3-Next: all parts of the delta rule are in two projections, ordered by head of keys."""
    sizes = _sizes(config)
    heads, shared = sizes["delta_key_heads"], sizes["delta_heads"] // sizes["delta_key_heads"]
    widths = (sizes["key_dim"], sizes["key_dim"], shared * sizes["value_dim"], shared * sizes["value_dim"])
    q, k, v, z = (PartByHead(f"{_DELTA}in_proj_qkvz.weight", heads, which, widths) for which in range(4))
    beta, decay = (PartByHead(f"{_DELTA}in_proj_ba.weight", heads, which) for which in (0, 1))
    return {
        **SPLIT,
        **EXPERTS,
        "blocks.{i}.0.inner.qkv.weight": Either((_QKV, Rows((q, k, v), shares=widths[:3]))),
        "blocks.{i}.0.inner.gate.weight": Either((_GATE, z)),
        "blocks.{i}.0.inner.beta.weight": beta,
        "blocks.{i}.0.inner.decay.weight": decay,
    }


def _by_interval(config: Config) -> list[str]:
    """Returns the mixers by default: attention in each n-th layer."""
    every = config.at_least("full_attention_interval", 4)
    return ["delta" if (layer + 1) % every else "attention" for layer in range(config.layers())]


def _feed_forward(config: Config) -> dict[str, Any]:
    """Returns the layers with experts: each n-th, but those in `mlp_only_layers`."""
    n_experts, step = config.value("num_experts", 512), config.at_least("decoder_sparse_step", 1)
    dense = config.numbers("mlp_only_layers")
    sparse = [n_experts > 0 and layer not in dense and (layer + 1) % step == 0 for layer in range(config.layers())]
    found = {"feed_forward": " ".join("experts" if has else "mlp" for has in sparse)}
    return {**found, "n_experts": n_experts, "top_k": config.value("num_experts_per_tok", 10)} if any(sparse) else found


def _feed_forward_keys(ours: Settings) -> dict[str, Any]:
    dense = [layer for layer, word in enumerate(ours["feed_forward"]) if word == "mlp"]
    if len(dense) == ours["n_layers"]:
        return {"num_experts": 0}
    experts = {"num_experts": ours["n_experts"], "num_experts_per_tok": ours["top_k"]}
    return {**experts, "decoder_sparse_step": 1, "mlp_only_layers": dense}


ROTARY = rope(fraction="rotary_fraction", share=0.25, width=256)


def _positions(config: Config) -> dict[str, Any]:
    """Returns the rotary positions. The sections for images have no effect on text, whose three positions are equal."""
    plain = with_parameters(config, lambda found: without(found, "mrope_section", "mrope_interleaved"))
    return dict(ROTARY.settings(plain))


KEYS: dict[str, Key] = {
    **ATTENTION,
    "num_key_value_heads": To("n_kv_heads", 4),
    "hidden_act": SWIGLU,
    "attention_bias": Only(False),
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "linear_conv_kernel_dim": To("d_conv", 4),
    "attn_output_gate": Only(True),
    "use_sliding_window": Only(False),
    "mamba_ssm_dtype": Unused(),
    "mtp_num_hidden_layers": Unused(),
}
_SIZES = {**DELTA_SIZES, "head_dim": "head_dim"}
SIZES = Together((*_SIZES,), _sizes, keys_from(_SIZES))
PATTERN = layer_types(
    {"full_attention": "attention", "linear_attention": "delta"}, _by_interval, others=("full_attention_interval",)
)
_HUB: dict[str, Key] = {
    "mlp_only_layers": Unread([], (None,)),
    "output_gate_type": Unread("swish"),
    "mtp_use_dedicated_embeddings": Unused(),
}
QWEN3_5_TEXT = Architecture(
    model_type="qwen3_5_text",
    classes=("Qwen3_5ForCausalLM",),
    family="qwen3_next",
    weights=SPLIT,
    keys={**KEYS, **_HUB},
    together=(SIZES, PATTERN, Together(ROPE, _positions, ROTARY.inverse)),
    buffers=("mtp.*",),  # multi-token prediction
)
EXPERT_KEYS: dict[str, Key] = {
    **without(KEYS, "intermediate_size"),
    "num_key_value_heads": To("n_kv_heads", 2),
    "moe_intermediate_size": To("d_expert", 512),
    "shared_expert_intermediate_size": To("d_shared", 512),
    "num_experts": To("n_experts", 256),
    "num_experts_per_tok": To("top_k", 8),
    "output_router_logits": Unused(),
    "router_aux_loss_coef": Unused(),
}
QWEN3_5_MOE_TEXT = Architecture(
    model_type="qwen3_5_moe_text",
    classes=("Qwen3_5MoeForCausalLM",),
    family="qwen3_next",
    weights={**SPLIT, **EXPERTS},
    keys={**EXPERT_KEYS, **_HUB, "intermediate_size": Unused()},
    together=QWEN3_5_TEXT.together,
    fixed={"feed_forward": "experts"},
    aliases={"num_local_experts": "num_experts"},
    buffers=("mtp.*",),
)
QWEN3_NEXT = Architecture(
    model_type="qwen3_next",
    classes=("Qwen3NextForCausalLM",),
    family="qwen3_next",
    weights=_fused,
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 2),
        "moe_intermediate_size": To("d_expert", 512),
        "shared_expert_intermediate_size": To("d_shared", 512),
        "norm_topk_prob": To("normalize", default=True),
        "output_router_logits": Unused(),
        "router_aux_loss_coef": Unused(),
    },
    together=(
        *(SIZES, PATTERN),
        ROTARY,
        Together(
            ("num_experts", "num_experts_per_tok", "decoder_sparse_step", "mlp_only_layers"),
            _feed_forward,
            _feed_forward_keys,
        ),
    ),
    aliases={"num_local_experts": "num_experts"},
    buffers=("mtp.*",),
)
