"""A case, and the keys that several kinds of architectures share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

V = 61


@dataclass(frozen=True)
class Case:
    """The keys of a tiny config; each of `variants` changes some of them and is compared too."""

    keys: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


def without(keys: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Returns the keys except for those in `names`."""
    return {key: value for key, value in keys.items() if key not in names}


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    """Returns the change of a config to other rotary positions."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0, **parameters}}


LLAMA: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 0.02,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
LAYER_NORM: dict[str, Any] = without(LLAMA, "rms_norm_eps")
GRANITE: dict[str, Any] = {
    **LLAMA,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 1.6,
}
GRANITE_MOE: dict[str, Any] = {"num_local_experts": 5, "num_experts_per_tok": 2}
MLA: dict[str, Any] = {
    **LLAMA,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 4,
    "first_k_dense_replace": 1,
    "q_lora_rank": 10,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_group": 4,
    "topk_group": 2,
}
MOE_OF_MLA = (
    *("moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"),
    *("first_k_dense_replace", "n_group", "topk_group"),
)
YARN: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.9,
        "original_max_position_embeddings": 8,
    }
}
