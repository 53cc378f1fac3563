"""OLMo 2 in transformers."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Only, To
from lmzoo.hf.keys import ATTENTION, SWIGLU, rope
from lmzoo.hf.llama import INV_FREQ
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.weights import Weights

_OTHERS = ("before.weight", "q_norm.weight", "k_norm.weight")
WEIGHTS: Weights = {
    **{name: source for name, source in LLAMA.items() if not name.endswith(_OTHERS)},
    "blocks.{i}.0.inner.q_norm.norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blocks.{i}.0.inner.k_norm.norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    "blocks.{i}.0.after.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blocks.{i}.1.after.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}

OLMO2 = Architecture(
    model_type="olmo2",
    classes=("Olmo2ForCausalLM",),
    family="olmo2",
    weights=WEIGHTS,
    keys={
        **ATTENTION,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "hidden_act": SWIGLU,
        "attention_bias": Only(False),
        "tie_word_embeddings": To("tie_embeddings", default=False),
    },
    together=(rope(),),
    buffers=INV_FREQ,
)
