"""Flint, Kolibri 1 and AFMoE (Trinity) in transformers: windows, layers without positions, DeepSeek-V3's experts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Only, To, Together, Unread, Unused, refused
from lmzoo.hf.experts import shared_width
from lmzoo.hf.grouped import WEIGHTS
from lmzoo.hf.keys import ATTENTION, SWIGLU, unread, unused
from lmzoo.hf.layouts import Either
from lmzoo.hf.llama import BIASES
from lmzoo.hf.names import gated
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights
from lmzoo.hf.windows import all_but_each, windows

_LAYER, _MLP, _OURS = "model.layers.{i}.", "model.layers.{i}.mlp.", "blocks.{i}.1.inner."
_KINDS = {"sliding_attention": "window", "full_attention": "grouped_nope"}
SIZES: dict[str, Key] = {
    **ATTENTION,
    "num_key_value_heads": To("n_kv_heads", 4),
    "head_dim": To("head_dim", 128),
    "hidden_act": SWIGLU,
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "moe_intermediate_size": To("d_expert", 512),
    "num_experts_per_tok": To("top_k", 6),
    "output_router_logits": Unused(),
}


def layers(window: int, usual: Callable[[int, int], bool]) -> Together:
    """Returns the keys of the layers with a window, which is not null; those without one have no positions."""
    keys = windows(_KINDS, window, usual)

    def settings(config: Config) -> Mapping[str, Any]:
        if config.get("sliding_window", window) is None:
            raise refused("sliding_window", None, "must be a number")
        return keys.settings(config)

    return Together(keys.keys, settings, keys.inverse)


def _dense(config: Config) -> dict[str, Any]:
    """Returns the number of first layers without experts."""
    dense = config.numbers("mlp_only_layers", (0, 1))
    first = sum(layer in dense for layer in range(config.layers()))
    if any(layer not in dense for layer in range(first)):
        raise refused("mlp_only_layers", config.get("mlp_only_layers"), "must be the first layers")
    return {"n_dense": first}


FLINT = Architecture(
    model_type="flint",
    classes=("FlintForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        "blocks.{i}.0.inner.sinks": Either((f"{_LAYER}self_attn.softmax_offset", f"{_LAYER}self_attn.sinks")),
        **gated(f"{_OURS}shared.", f"{_MLP}shared_expert."),
    },
    keys={
        **SIZES,
        "num_experts": To("n_experts", 256),
        "norm_topk_prob": To("normalize", default=True),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "decoder_sparse_step": Only(1),
        "router_aux_loss_coef": Unused(),
    },
    together=(
        rope(),
        layers(513, lambda layer, n_layers: layer >= 2 and layer % 4 != 1 and layer != n_layers - 1),
        shared_width("shared_expert_intermediate_size", 1024, one=512),
        Together(("mlp_only_layers",), _dense, lambda ours: {"mlp_only_layers": [*range(ours["n_dense"])]}),
    ),
    aliases={"num_local_experts": "num_experts"},
    fixed={"qk_norm": "head", "sinks": True, "balance_bias": False},
)
_AFTER: Weights = {
    "blocks.{i}.0.before.weight": f"{_LAYER}input_layernorm.weight",
    "blocks.{i}.1.before.weight": f"{_LAYER}post_attention_layernorm.weight",
    "blocks.{i}.0.after.weight": Either((f"{_LAYER}post_attn_norm.weight", f"{_LAYER}post_self_attn_layernorm.weight")),
    "blocks.{i}.1.after.weight": Either((f"{_LAYER}post_ffn_norm.weight", f"{_LAYER}post_mlp_layernorm.weight")),
}
KOLIBRI1 = Architecture(
    model_type="kolibri1",
    classes=("Kolibri1ForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        **_AFTER,
        f"{_OURS}choice_bias": Either(
            (f"{_LAYER}moe.router.expert_bias", f"{_MLP}gate.e_score_correction_bias"),
        ),
    },
    keys={
        **SIZES,
        "intermediate_size": Unused(),
        "num_experts": To("n_experts", 384),
        "norm_topk_prob": To("normalize", default=False),
    },
    together=(
        rope(),
        layers(513, lambda layer, _: (layer + 1) % 5 != 0),
        shared_width("shared_expert_intermediate_size", 512, one=512),
    ),
    aliases={"num_local_experts": "num_experts"},
    fixed={"qk_norm": "head", "post_norms": True, "by_logit": True, "n_dense": 0},
)


def _scaled(config: Config) -> dict[str, Any]:
    scaled = config.value("mup_enabled", False)
    return {"embedding_scale": math.sqrt(config.value("hidden_size", 2048)) if scaled else 1.0}


AFMOE = Architecture(
    model_type="afmoe",
    classes=("AfmoeForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        "blocks.{i}.0.inner.gate.weight": f"{_LAYER}self_attn.gate_proj.weight",
        "blocks.{i}.0.after.weight": f"{_LAYER}post_attention_layernorm.weight",
        "blocks.{i}.1.before.weight": f"{_LAYER}pre_mlp_layernorm.weight",
        "blocks.{i}.1.after.weight": f"{_LAYER}post_mlp_layernorm.weight",
        f"{_OURS}router.weight": f"{_MLP}router.gate.weight",
        f"{_OURS}choice_bias": f"{_MLP}expert_bias",
    },
    keys={
        **SIZES,
        "num_key_value_heads": To("n_kv_heads", None),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "moe_intermediate_size": To("d_expert", 1408),
        "num_experts": To("n_experts", 64),
        "num_shared_experts": To("n_shared", 2),
        "num_dense_layers": To("n_dense", 1),
        "route_scale": To("routed_scale", 1.0),
        "attention_bias": Only(False),
        "score_func": Unread("sigmoid"),
        "route_norm": Unread(True),
        **unread(1, "n_group", "topk_group", "num_expert_groups", "num_limited_groups"),
        **unused("load_balance_coeff", "use_grouped_mm"),
    },
    together=(
        rope(),
        all_but_each(4, _KINDS, "global_attn_every_n_layers", window=1024),
        Together(("mup_enabled",), _scaled, lambda ours: {"mup_enabled": ours["embedding_scale"] != 1}),
    ),
    aliases={"num_local_experts": "num_experts"},
    fixed={"qk_norm": "head", "gate": True, "post_norms": True},
)
