"""ERNIE 4.5 with experts in transformers: biases choose experts, whose weights are a softmax."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unread, refused
from lmzoo.hf.grouped import WEIGHTS
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.layouts import Either, Squeezed
from lmzoo.hf.neighbors import neighbors
from lmzoo.hf.rotary import rope

_BIASES = tuple(
    f"model.layers.{{i}}.mlp.{place}.e_score_correction_bias" for place in ("moe_statics", "gate.moe_statics")
)


def _dense(config: Config) -> dict[str, Any]:
    """Returns the number of first layers without experts; all others have them."""
    last, first = config.layers() - 1, config.value("moe_layer_start_index", 1)
    if config.value("moe_layer_end_index", -1) not in (-1, last):
        raise refused("moe_layer_end_index", config.get("moe_layer_end_index"), f"must be -1 or the last layer, {last}")
    return {"n_dense": max(0, first)}


def _dense_keys(ours: Settings) -> dict[str, Any]:
    return {"moe_layer_start_index": ours["n_dense"]}


ERNIE4_5_MOE = Architecture(
    model_type="ernie4_5_moe",
    classes=("Ernie4_5_MoeForCausalLM",),
    family="deepseek",
    weights=neighbors({**WEIGHTS, "blocks.{i}.1.inner.choice_bias": Squeezed(Either(_BIASES), axis=0)}),
    keys={
        **ATTENTION,
        "num_key_value_heads": To("n_kv_heads", 4),
        "rms_norm_eps": To("norm_eps", 1e-5),
        "head_dim": To("head_dim", None),
        "hidden_act": SWIGLU,
        "tie_word_embeddings": To("tie_embeddings", default=True),
        "use_bias": Only(False),
        "moe_intermediate_size": To("d_expert", 1536),
        "moe_k": To("top_k", 6),
        "moe_num_experts": To("n_experts", 64),
        "moe_num_shared_experts": To("n_shared", 2),
        "moe_layer_interval": Only(1),
        "moe_norm_min": Only(1e-12),
        "moe_gate": Unread("topk"),
        "moe_use_aux_free": Unread(True),
        **unused("output_router_logits", "router_aux_loss_coef", "moe_capacity", "num_nextn_predict_layers"),
    },
    together=(rope(500000.0), Together(("moe_layer_start_index", "moe_layer_end_index"), _dense, _dense_keys)),
    aliases={"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"},
    fixed={"pattern": "grouped", "sigmoid": False},
    buffers=("*mtp*",),  # multi-token prediction
)
