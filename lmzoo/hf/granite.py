"""Granite in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Only, To
from lmzoo.hf.keys import ATTENTION, SWIGLU, rope
from lmzoo.hf.llama import WEIGHTS as LLAMA

GRANITE = Architecture(
    model_type="granite",
    classes=("GraniteForCausalLM",),
    family="granite",
    weights={**LLAMA, "head.inner.weight": LLAMA["head.weight"]},
    keys={
        **ATTENTION,
        "hidden_act": SWIGLU,
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "attention_bias": To("attention_bias", default=False),
        "mlp_bias": Only(False),
        "embedding_multiplier": To("embedding_scale", 1.0),
        "attention_multiplier": To("attention_scale", 1.0),
        "residual_multiplier": To("residual_scale", 1.0),
        "logits_scaling": To("logit_divisor", 1.0),
    },
    together=(rope(),),
)
