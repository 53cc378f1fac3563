"""Relatives of Llama in transformers that rotate pairs of neighbors: Helium, GLM, GLM-4-0414 and ERNIE 4.5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lmzoo.hf.architecture import Architecture, Config, Key, To
from lmzoo.hf.keys import without
from lmzoo.hf.layouts import Neighbors, Source
from lmzoo.hf.llama import KEYS, MLP_BIAS, QKV_BIASES, WEIGHTS, all_biases
from lmzoo.hf.names import qkv
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights


def neighbors(weights: Weights, share: float = 1.0) -> Callable[[Config], Weights]:
    """Returns the names for a config, in which the rotated share of a head has this default."""
    positions = rope(fraction="fraction", share=share)

    def names(config: Config) -> Weights:
        def rotated(name: str, heads: str) -> Source:
            return Neighbors(name, positions.settings(config)["fraction"], heads, first=True)

        return {**weights, **qkv("model.layers.{i}.self_attn.", rotated)}

    return names


FUSED: Mapping[str, Source] = {"blocks.{i}.1.inner.up.weight": "model.layers.{i}.mlp.gate_up_proj.weight"}
QKV_BIAS = To("attention_bias", default=False, values=QKV_BIASES)
HEADS: dict[str, Key] = {"num_key_value_heads": To("n_kv_heads", 2), "head_dim": To("head_dim", 128)}
HELIUM = Architecture(
    model_type="helium",
    classes=("HeliumForCausalLM",),
    family="llama",
    weights=neighbors(WEIGHTS),
    keys={
        **KEYS,
        **HEADS,
        "num_key_value_heads": To("n_kv_heads", 20),
        "rms_norm_eps": To("norm_eps", 1e-8),
        "attention_bias": QKV_BIAS,
        "mlp_bias": MLP_BIAS,
    },
    together=(rope(100000.0),),
)
GLM = Architecture(
    model_type="glm",
    classes=("GlmForCausalLM",),
    family="llama",
    weights=neighbors({**WEIGHTS, **FUSED}, 0.5),
    keys={
        **KEYS,
        **HEADS,
        "rms_norm_eps": To("norm_eps", 1.5625e-07),
        "attention_bias": To("attention_bias", default=True, values=QKV_BIASES),
    },
    together=(rope(fraction="rotary_fraction", share=0.5),),
)


_AFTER: Mapping[str, Source] = {
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_self_attn_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_mlp_layernorm.weight",
}
GLM4 = replace(
    GLM,
    model_type="glm4",
    classes=("Glm4ForCausalLM",),
    weights=neighbors({**WEIGHTS, **FUSED, **_AFTER}, 0.5),
    fixed={"post_norms": True},
)
ERNIE4_5 = Architecture(
    model_type="ernie4_5",
    classes=("Ernie4_5ForCausalLM",),
    family="llama",
    weights=neighbors(WEIGHTS),
    keys={
        **without(KEYS, "mlp_bias"),
        **HEADS,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "tie_word_embeddings": To("tie_embeddings", default=True),
    },
    together=(rope(500000.0), all_biases("use_bias")),
)
