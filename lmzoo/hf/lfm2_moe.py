"""LFM2 with experts in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Settings, To, Together, Unused
from lmzoo.hf.layer_types import layer_types
from lmzoo.hf.lfm2 import KEYS, MIXERS
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


def _dense_first(config: Config) -> dict[str, Any]:
    """Returns the feed-forward layers: dense ones first."""
    n_layers, dense = config.layers(), config.at_least("num_dense_layers", 2, least=0)
    words = ["mlp"] * min(dense, n_layers) + ["experts"] * (n_layers - dense)
    return {"feed_forward": " ".join(words)}


def _dense_first_keys(ours: Settings) -> dict[str, Any]:
    return {"num_dense_layers": ours["feed_forward"].count("mlp")}


LFM2_MOE = Architecture(
    model_type="lfm2_moe",
    classes=("Lfm2MoeForCausalLM",),
    family="lfm2",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "intermediate_size": To("d_ff"),
        "moe_intermediate_size": To("d_expert", 1792),
        "num_experts": To("n_experts", 32),
        "num_experts_per_tok": To("top_k", 4),
        "norm_topk_prob": To("normalize", default=True),
        "routed_scaling_factor": To("routed_scale", 1.0),
        "use_expert_bias": To("balance_bias", default=True),
        "output_router_logits": Unused(),
    },
    together=(
        rope(1e6),
        layer_types(MIXERS),
        Together(("num_dense_layers",), _dense_first, _dense_first_keys),
    ),
    aliases={"tie_embedding": "tie_word_embeddings"},
)
