"""Qwen2-MoE and Qwen1.5-MoE in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, To, Together, refused
from lmzoo.hf.keys import without
from lmzoo.hf.llama import KINDS, QKV_BIASES, windows_keys
from lmzoo.hf.mixtral import EACH, QWEN3_MOE, only_experts
from lmzoo.hf.qwen3_next import EXPERTS
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

WEIGHTS: Weights = {**EACH, **EXPERTS}


def _windows(config: Config) -> dict[str, Any]:
    """Returns the window, which every second of the first layers has, unless `layer_types` names others."""
    only_experts(config)
    windows, most = config.value("use_sliding_window", False), config.value("max_window_layers", 28)
    kinds = [
        "full_attention" if layer % 2 or layer >= most else "sliding_attention" for layer in range(config.layers())
    ]
    words = ["full"] * config.layers()
    if config.get("layer_types") is not None:
        words = config.words("layer_types", KINDS)
    elif windows:
        words = Config({**config, "layer_types": kinds}).words("layer_types", KINDS)
    if "rope" in words and not windows:
        raise refused(
            "layer_types", config.get("layer_types"), "has sliding_attention, but use_sliding_window is false"
        )
    window = config.value("sliding_window", 4096) if "rope" in words else None
    return {"window": window, "pattern": " ".join(words)}


QWEN2_MOE = Architecture(
    model_type="qwen2_moe",
    classes=("Qwen2MoeForCausalLM",),
    family="mixtral",
    weights=WEIGHTS,
    keys={
        **without(QWEN3_MOE.keys, "attention_bias", "max_window_layers"),
        "num_key_value_heads": To("n_kv_heads", 16),
        "moe_intermediate_size": To("d_ff", 1408),
        "shared_expert_intermediate_size": To("d_shared", 5632, null=False),
        "num_experts": To("n_experts", 60),
        "num_experts_per_tok": To("top_k", 4),
        "qkv_bias": To("attention_bias", default=True, values=QKV_BIASES),
    },
    together=(
        rope(),
        Together(
            (
                *("decoder_sparse_step", "mlp_only_layers", "use_sliding_window", "sliding_window"),
                *("max_window_layers", "layer_types"),
            ),
            _windows,
            windows_keys,
        ),
    ),
)
