"""nanochat in transformers, which rotates queries and keys the other way round."""

from __future__ import annotations

from lmzoo.hf.architecture import Architecture, Only, To
from lmzoo.hf.keys import without
from lmzoo.hf.layouts import Exchanged
from lmzoo.hf.llama import BIASES, KEYS, WEIGHTS
from lmzoo.hf.names import both, qkv
from lmzoo.hf.rotary import rope

_MLP = "model.layers.{i}.mlp."
NANOCHAT = Architecture(
    model_type="nanochat",
    classes=("NanoChatForCausalLM",),
    family="llama",
    weights={
        **WEIGHTS,
        **qkv("model.layers.{i}.self_attn.", Exchanged),
        **both("blocks.{i}.1.inner.up", f"{_MLP}fc1"),
        **both("blocks.{i}.1.inner.down", f"{_MLP}fc2"),
        "head.linear.weight": WEIGHTS["head.weight"],  # with a cap
    },
    keys={
        **without(KEYS, "mlp_bias"),
        "hidden_act": Only("relu2"),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "final_logit_softcapping": To("logit_cap", 15.0),
    },
    together=(rope(),),
    fixed={"mlp": "relu2", "norm_weight": False, "embedding_norm": True, "late_qk_norm": True},
)
