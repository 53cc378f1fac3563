"""LFM2 with experts in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unused, layer_words, refused
from lmzoo.hf.keys import SIZES
from lmzoo.hf.lfm2 import WEIGHTS as LFM2
from lmzoo.hf.names import W1_W3_W2, experts
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_FF = "model.layers.{i}.feed_forward."
WEIGHTS: Weights = {
    **LFM2,
    **experts(f"{_FF}experts.", W1_W3_W2),
    "blocks.{i}.1.inner.router.weight": f"{_FF}gate.weight",
    "blocks.{i}.1.inner.choice_bias": f"{_FF}expert_bias",
}
_KINDS = {"conv": "conv", "full_attention": "attention"}


def _layers(config: Config) -> dict[str, Any]:
    """Returns the mixers, and the feed-forward layers: dense ones first."""
    n_layers, dense = config.layers(), config.value("num_dense_layers", 2)
    if dense < 0:
        raise refused("num_dense_layers", dense, "must be at least 0")
    words = ["mlp"] * min(dense, n_layers) + ["experts"] * (n_layers - dense)
    return {"pattern": " ".join(config.words("layer_types", _KINDS)), "feed_forward": " ".join(words)}


def _layers_keys(ours: Settings) -> dict[str, Any]:
    dense = ours["feed_forward"].count("mlp")
    return {**layer_words("layer_types", ours["pattern"], _KINDS), "num_dense_layers": dense}


LFM2_MOE = Architecture(
    model_type="lfm2_moe",
    classes=("Lfm2MoeForCausalLM",),
    family="lfm2",
    weights=WEIGHTS,
    keys={
        **SIZES,
        "num_attention_heads": To("n_heads"),
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", None),
        "intermediate_size": To("d_ff"),
        "norm_eps": To("norm_eps", 1e-5),
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "conv_L_cache": To("d_conv", 3),
        "conv_bias": Only(False),
        "moe_intermediate_size": To("d_expert", 1792),
        "num_experts": To("n_experts", 32),
        "num_experts_per_tok": To("top_k", 4),
        "norm_topk_prob": To("normalize", default=True),
        "routed_scaling_factor": To("routed_scale", 1.0),
        "use_expert_bias": To("balance_bias", default=True),
        "output_router_logits": Unused(),
    },
    together=(rope(1e6), Together(("layer_types", "num_dense_layers"), _layers, _layers_keys)),
    aliases={"tie_embedding": "tie_word_embeddings"},
)
