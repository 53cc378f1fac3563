"""Hy3, HunYuan with experts and K-EXAONE in transformers: more relatives of DeepSeek-V3 with grouped queries."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import (
    Architecture,
    Config,
    Key,
    Only,
    To,
    Together,
    Unread,
    Unused,
    checked,
    keys_from,
    refused,
)
from lmzoo.hf.experts import DENSE_FIRST, FIRST_ONE_DENSE, MTP_LAYER, groups
from lmzoo.hf.grouped import WEIGHTS
from lmzoo.hf.hunyuan import HUNYUAN_UNREAD, POSITIONS
from lmzoo.hf.keys import ATTENTION, SWIGLU, unread, unused, without
from lmzoo.hf.layouts import Either, gate_and_up
from lmzoo.hf.llama import BIASES
from lmzoo.hf.olmo2 import EXAONE4_LAYERS
from lmzoo.hf.rotary import rope
from lmzoo.hf.weights import Weights
from lmzoo.hf.windows import window_keys

_MLP, _OURS = "model.layers.{i}.mlp.", "blocks.{i}.1.inner."


def _shared(*modules: str) -> Weights:
    """Returns the names of the experts that read every token, in the first of these modules that is there."""
    return {
        f"{_OURS}shared.up.weight": Either(tuple(gate_and_up(f"{_MLP}{module}.") for module in modules)),
        f"{_OURS}shared.down.weight": Either(tuple(f"{_MLP}{module}.down_proj.weight" for module in modules)),
    }


KEYS: dict[str, Key] = {
    **ATTENTION,
    "rms_norm_eps": To("norm_eps", 1e-5),
    "hidden_act": SWIGLU,
    "tie_word_embeddings": To("tie_embeddings", default=False),
    "output_router_logits": Unused(),
    "num_nextn_predict_layers": Unused(),  # of multi-token prediction
}
HY_V3 = Architecture(
    model_type="hy_v3",
    classes=("HYV3ForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        **_shared("shared_mlp", "shared_experts"),
        f"{_OURS}router.weight": Either((f"{_MLP}router.gate.weight", f"{_MLP}gate.weight")),
        f"{_OURS}choice_bias": Either((f"{_MLP}expert_bias", f"{_MLP}e_score_correction_bias")),
    },
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 8),
        "head_dim": To("head_dim", 128),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "mlp_bias": Only(False),
        "moe_intermediate_size": To("d_expert", 1536),
        "num_experts": To("n_experts", 192),
        "num_experts_per_tok": To("top_k", 8),
        "num_shared_experts": To("n_shared", 1),
        "router_scaling_factor": To("routed_scale", 2.826),
        "enable_moe_fp32_combine": Unused(),  # of 16-bit weights
        "first_k_dense_replace": Unread(1),  # transformers reads mlp_layer_types
    },
    together=(rope(11158840.0), FIRST_ONE_DENSE),
    aliases={"num_local_experts": "num_experts"},
    fixed={"pattern": "grouped", "qk_norm": "head"},
    buffers=MTP_LAYER,
)


def _same_in_all_layers(config: Config) -> dict[str, Any]:
    """Returns the number of experts for each token, which is one number or one for each layer."""
    found = config.value("moe_topk", 1, int, list)
    if isinstance(found, list):
        if len({*map(repr, found)}) != 1:
            raise refused("moe_topk", found, "must be the same in all layers")
        found = found[0]
    return {"top_k": Config(moe_topk=found).value("moe_topk", 1)}


def _agreeing(config: Config) -> None:
    """Refuses numbers in files of the hub that differ from those that transformers reads; they may be lists."""
    width, head = config.get("intermediate_size"), config.get("head_dim")
    for key, wanted in (("moe_intermediate_size", width), ("num_shared_expert", 1), ("attention_head_dim", head)):
        found = config.get(key, wanted)
        if any(each != wanted for each in (found if isinstance(found, list) else [found])):
            raise refused(key, found, f"must be {wanted} in all layers")


# Of forms of layers that are off.
_OFF = (
    *("capacity_factor", "n_group", "topk_group", "q_lora_rank", "kv_lora_rank"),
    *("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
)
HUNYUAN_V1_MOE = Architecture(
    model_type="hunyuan_v1_moe",
    classes=("HunYuanMoEV1ForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        **_shared("shared_mlp"),
        "blocks.{i}.0.inner.late_q_norm.weight": "model.layers.{i}.self_attn.query_layernorm.weight",
        "blocks.{i}.0.inner.late_k_norm.weight": "model.layers.{i}.self_attn.key_layernorm.weight",
        f"{_OURS}router.weight": f"{_MLP}gate.wg.weight",
    },
    keys={
        **without(KEYS, "intermediate_size"),
        "intermediate_size": To("d_expert"),
        "head_dim": To("head_dim", null=False),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        "num_experts": To("n_experts", 1),
        "norm_topk_prob": Unread(True),
        "routed_scaling_factor": Unread(1.0),
        **HUNYUAN_UNREAD,
        **unread(True, "use_mixed_mlp_moe", "use_rotary_pos_emb"),
        **unread(False, "mlp_bias", "moe_random_routing_dropped_token"),
        **unread(False, "use_mla", "group_limited_greedy", "moe_drop_tokens"),
        "moe_layer_num_skipped": Unread(0),
        **unused(*_OFF),
    },
    together=(
        POSITIONS,
        checked(("moe_intermediate_size", "num_shared_expert", "attention_head_dim"), _agreeing),
        Together(("moe_topk",), _same_in_all_layers, keys_from({"moe_topk": "top_k"})),
    ),
    aliases={"num_local_experts": "num_experts", "num_experts_per_tok": "moe_topk"},
    fixed={"pattern": "grouped", "qk_norm": "late", "n_dense": 0, "n_shared": 1}
    | {"sigmoid": False, "balance_bias": False},
)


def _layers(config: Config) -> dict[str, Any]:
    """Returns the layers and their window: those without one have no positions."""
    if config.get("sliding_window", 4096) is None:
        raise refused("sliding_window", None, "must be a number")
    found = EXAONE4_LAYERS.settings(config)
    return {**found, "pattern": found["pattern"].replace("nope", "grouped_nope")}


_LAYERS_KEYS = window_keys({"sliding_attention": "window", "full_attention": "grouped_nope"})


EXAONE_MOE = Architecture(
    model_type="exaone_moe",
    classes=("ExaoneMoeForCausalLM",),
    family="deepseek",
    weights={
        **WEIGHTS,
        f"{_OURS}choice_bias": Either(
            (f"{_MLP}e_score_correction_bias", f"{_MLP}gate.e_score_correction_bias"),
        ),
    },
    keys={
        **KEYS,
        "num_key_value_heads": To("n_kv_heads", 32),
        "head_dim": To("head_dim", None),
        "moe_intermediate_size": To("d_expert", 1024),
        "num_experts": To("n_experts", 64),
        "num_shared_experts": To("n_shared", 1),
        "routed_scaling_factor": To("routed_scale", 2.5),
        "norm_topk_prob": To("normalize", default=True),
    },
    together=(rope(), Together(EXAONE4_LAYERS.keys, _layers, _LAYERS_KEYS), groups(1, 1, 8), DENSE_FIRST),
    aliases={"num_local_experts": "num_experts"},
    fixed={"qk_norm": "head"},
    buffers=("*mtp.*",),
)
