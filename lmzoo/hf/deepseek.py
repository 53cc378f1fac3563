"""DeepSeek-V2 and V3 in transformers. Both rotate pairs of neighbors; a V3 may rotate halves, as lmzoo does."""

from __future__ import annotations

from typing import Any

from lmzoo.hf import latent
from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unused, refused
from lmzoo.hf.experts import MTP_LAYER, groups
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused, without
from lmzoo.hf.latent import latent_attention, names_of
from lmzoo.hf.names import experts, frame, gated
from lmzoo.hf.weights import Weights

_LAYER, _MLP = "model.layers.{i}.", "model.layers.{i}.mlp."
_COMMON: Weights = {
    **frame("model.embed_tokens", "model.norm"),
    "blocks.{i}.0.before.weight": f"{_LAYER}input_layernorm.weight",
    **latent.SHARED,
    "blocks.{i}.1.before.weight": f"{_LAYER}post_attention_layernorm.weight",
    **gated("blocks.{i}.1.inner.", _MLP),
    "blocks.{i}.1.inner.router.weight": f"{_MLP}gate.weight",
    **experts(f"{_MLP}experts."),
    **gated("blocks.{i}.1.inner.shared.", f"{_MLP}shared_experts."),
}
V2_LITE: Weights = {**_COMMON, **latent.DIRECT}  # q_rank is None
V2: Weights = {**_COMMON, **latent.LOW_RANK}
V3: Weights = {**V2, "blocks.{i}.1.inner.choice_bias": f"{_MLP}gate.e_score_correction_bias"}


def _limited(config: Config) -> dict[str, Any]:
    """Returns the groups of experts of V2, which only one method has."""
    method = config.value("topk_method", "greedy")
    if method not in ("greedy", "group_limited_greedy"):
        raise refused("topk_method", method, "must be greedy or group_limited_greedy")
    if method == "greedy":
        return {"n_groups": 1, "top_groups": 1}
    return {"n_groups": config.value("n_group", 1), "top_groups": config.value("topk_group", 1)}


def _limited_keys(ours: Settings) -> dict[str, Any]:
    method = "greedy" if ours["n_groups"] == 1 else "group_limited_greedy"
    return {"topk_method": method, "n_group": ours["n_groups"], "topk_group": ours["top_groups"]}


_KEYS = {
    **without(ATTENTION, "num_attention_heads", "num_key_value_heads"),
    **latent.KEYS,
    "hidden_act": SWIGLU,
    "attention_bias": Only(False),
    "tie_word_embeddings": To("tie_embeddings", default=False),
    **unused("head_dim", "qk_head_dim"),  # computed from other keys, but see `latent_attention`
    **unused("output_router_logits", "aux_loss_alpha", "seq_aux", "ep_size"),
    "moe_layer_freq": Only(1),
}
DEEPSEEK_V2 = Architecture(
    model_type="deepseek_v2",
    classes=("DeepseekV2ForCausalLM",),
    family="deepseek",
    weights=names_of(V2),
    keys={
        **_KEYS,
        "moe_intermediate_size": To("d_expert", 1407),
        "n_routed_experts": To("n_experts", 64),
        "n_shared_experts": To("n_shared", 2),
        "num_experts_per_tok": To("top_k"),
        "first_k_dense_replace": To("n_dense", 0),
        "routed_scaling_factor": To("routed_scale", 1.0),
        "norm_topk_prob": Only(False),
        "scoring_func": Only("softmax"),
        "mlp_bias": Only(False),
    },
    together=(
        latent_attention(),
        Together(("topk_method", "n_group", "topk_group"), _limited, _limited_keys),
    ),
    fixed={"sigmoid": False, "normalize": False, "balance_bias": False},
    aliases={"num_experts": "n_routed_experts"},
)
DEEPSEEK_V3 = Architecture(
    model_type="deepseek_v3",
    classes=("DeepseekV3ForCausalLM",),
    family="deepseek",
    weights=names_of(V3),
    keys={
        **_KEYS,
        "moe_intermediate_size": To("d_expert", 2048),
        "n_routed_experts": To("n_experts", 256),
        "n_shared_experts": To("n_shared", 1),
        "first_k_dense_replace": To("n_dense", 3),
        "routed_scaling_factor": To("routed_scale", 2.5),
        "norm_topk_prob": To("normalize", default=True),
        "rope_interleave": Only(True, (False, None)),  # the layout of the weights
        "topk_method": Only("noaux_tc"),
        "scoring_func": Only("sigmoid"),
        "num_nextn_predict_layers": Unused(),  # of multi-token prediction
    },
    together=(latent_attention(kv_heads=128), groups(8, 4, 8)),
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
    buffers=MTP_LAYER,
)
