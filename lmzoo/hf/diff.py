"""The Diff Transformer in transformers: DiffLlama."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unused, refused
from lmzoo.hf.keys import ATTENTION, SWIGLU, without
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights

_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")

WEIGHTS: Weights = {
    **LLAMA,
    **{f"blocks.{{i}}.0.inner.{name}": f"model.layers.{{i}}.self_attn.{name}" for name in _LAMBDAS},
}


def _heads(config: Config) -> dict[str, Any]:
    """Returns the heads: transformers counts the two maps of a head as two."""
    maps = config.value("num_attention_heads", 32)
    kv_maps, width = config.value("num_key_value_heads", maps), config.value("hidden_size", 2048)
    for key, count in (("num_attention_heads", maps), ("num_key_value_heads", kv_maps)):
        if count % 2:
            raise refused(key, count, "must be even: a head has two maps")
    if config.value("head_dim", width // max(1, maps)) != width // max(1, maps):
        raise refused("head_dim", config["head_dim"], "must be hidden_size / num_attention_heads")
    return {"n_heads": maps // 2, "n_kv_heads": kv_maps // 2}


def _heads_keys(ours: Settings) -> dict[str, Any]:
    return {"num_attention_heads": 2 * ours["n_heads"], "num_key_value_heads": 2 * ours["n_kv_heads"]}


DIFFLLAMA = Architecture(
    model_type="diffllama",
    classes=("DiffLlamaForCausalLM",),
    family="diff",
    weights=WEIGHTS,
    keys={
        **without(ATTENTION, "num_attention_heads", "num_key_value_heads"),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": SWIGLU,
        "attention_bias": Only(False),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "lambda_std_dev": Unused(),
    },
    together=(
        rope(),
        Together(("num_attention_heads", "num_key_value_heads", "head_dim"), _heads, _heads_keys),
    ),
)
