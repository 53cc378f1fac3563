"""DeepSeek-V2 and V3 in transformers. Both rotate pairs of neighbors; a V3 may rotate halves, as lmzoo does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, Unused, refused
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused, without
from lmzoo.hf.layouts import Neighbors
from lmzoo.hf.names import experts, frame, gated
from lmzoo.hf.rotary import ROPE, rope, yarn_magnitude
from lmzoo.hf.weights import Weights
from lmzoo.layers.rope_scaling import Yarn

_OURS, _THEIRS = "blocks.{i}.0.inner.", "model.layers.{i}.self_attn."
_MLP, _THEIR_MLP = "blocks.{i}.1.inner.", "model.layers.{i}.mlp."


_COMMON: Weights = {
    **frame("model.embed_tokens", "model.norm"),
    "blocks.{i}.0.before.weight": "model.layers.{i}.input_layernorm.weight",
    f"{_OURS}kv_down.weight": Neighbors(f"{_THEIRS}kv_a_proj_with_mqa.weight", "rope_dim"),
    f"{_OURS}kv_norm.weight": f"{_THEIRS}kv_a_layernorm.weight",
    f"{_OURS}kv_up.weight": f"{_THEIRS}kv_b_proj.weight",
    f"{_OURS}out.weight": f"{_THEIRS}o_proj.weight",
    "blocks.{i}.1.before.weight": "model.layers.{i}.post_attention_layernorm.weight",
    **gated(_MLP, _THEIR_MLP),
    f"{_MLP}router.weight": f"{_THEIR_MLP}gate.weight",
    **experts(f"{_THEIR_MLP}experts."),
    **gated(f"{_MLP}shared.", f"{_THEIR_MLP}shared_experts."),
}

V2_LITE: Weights = {  # q_rank is None
    **_COMMON,
    f"{_OURS}q.weight": Neighbors(f"{_THEIRS}q_proj.weight", "rope_dim", "n_heads"),
}
V2: Weights = {
    **_COMMON,
    f"{_OURS}q_down.weight": f"{_THEIRS}q_a_proj.weight",
    f"{_OURS}q_norm.weight": f"{_THEIRS}q_a_layernorm.weight",
    f"{_OURS}q.weight": Neighbors(f"{_THEIRS}q_b_proj.weight", "rope_dim", "n_heads"),
}
V3: Weights = {**V2, f"{_MLP}choice_bias": f"{_THEIR_MLP}gate.e_score_correction_bias"}


def in_halves(weights: Weights) -> Weights:
    """Returns the names where rotary pairs are halves, as in lmzoo, and not neighbors."""
    return {name: source.part if isinstance(source, Neighbors) else source for name, source in weights.items()}


def names_of(weights: Weights) -> Callable[[Config], Weights]:
    """Returns the names for a config: `q_lora_rank` decides how queries are projected."""

    def names(config: Config) -> Weights:
        low = config.get("q_lora_rank", 1536) is not None
        found = weights if low else {**weights, f"{_OURS}q.weight": V2_LITE[f"{_OURS}q.weight"]}
        return found if config.get("rope_interleave", True) else in_halves(found)

    return names


def latent_attention(config: Config, kv_heads: int | None = None) -> dict[str, Any]:
    """Returns the heads and rotary positions; YaRN also sharpens the scores. `kv_heads` is a default."""
    heads = config.value("num_attention_heads", 0)
    if "num_key_value_heads" in config:
        kv_heads = config.value("num_key_value_heads", heads)
    if kv_heads not in (None, heads):
        raise refused("num_key_value_heads", kv_heads, f"must be num_attention_heads={heads}")
    parameters = config.table("rope_scaling") or config.table("rope_parameters")
    width = config.value("qk_rope_head_dim", 64)
    if config.value("head_dim", width) != width:  # transformers takes it for the rotated width
        raise refused("head_dim", config["head_dim"], f"must be qk_rope_head_dim={width}")
    rotated = Config({**config, "head_dim": width})
    everywhere, found = parameters.value("mscale_all_dim", 0.0, float), {**rope().settings(rotated)}
    if everywhere and found["rope_scaling"] != "none":
        found["sharpness"] = yarn_magnitude(everywhere, parameters.value("factor", 1.0, float)) ** 2
    return {"n_heads": heads, **found}


def expert_groups(config: Config, defaults: Mapping[str, int], ours: tuple[str, str, str]) -> dict[str, int]:
    """Returns the number of groups of experts, how many of them are chosen, and how many experts.

    `defaults` has their three keys, and `ours` the settings. In transformers, the score of a group is the sum of its
    two largest affinities, whatever the other numbers are.
    """
    groups, best, top_k = (config.value(key, default) for key, default in defaults.items())
    return {**dict(zip(ours, (groups, best, top_k), strict=True)), **({"group_best": 2} if groups != best else {})}


def groups(
    n_group: int,
    topk_group: int,
    top_k: int,
    keys: tuple[str, str, str] = ("n_group", "topk_group", "num_experts_per_tok"),
) -> Together:
    """Returns the keys of groups of experts, with these defaults."""
    names = ("n_groups", "top_groups", "top_k")
    defaults = dict(zip(keys, (n_group, topk_group, top_k), strict=True))
    return Together(
        keys,
        lambda config: expert_groups(config, defaults, names),
        lambda ours: {key: ours[name] for key, name in zip(keys, names, strict=True)},
    )


def _limited(config: Config) -> dict[str, Any]:
    """Returns the groups of experts of V2, which only one method has."""
    method = config.value("topk_method", "greedy")
    if method not in ("greedy", "group_limited_greedy"):
        raise refused("topk_method", method, "must be greedy or group_limited_greedy")
    if method == "greedy":
        return {"n_groups": 1, "top_groups": 1}
    return {"n_groups": config.value("n_group", 1), "top_groups": config.value("topk_group", 1)}


def _dense_first(config: Config) -> dict[str, Any]:
    """Returns the number of first layers without experts."""
    n_layers, first = config.layers(), config.value("first_k_dense_replace", 1)
    kinds = config.get("mlp_layer_types")
    if kinds is None:
        return {"n_dense": min(max(0, first), n_layers)}
    words = config.words("mlp_layer_types", {"dense": "dense", "sparse": "sparse"})
    first = words.count("dense")
    if words != ["dense"] * first + ["sparse"] * (n_layers - first):
        raise refused("mlp_layer_types", kinds, "must have all dense layers before the sparse ones")
    return {"n_dense": first}


def _dense_first_keys(ours: Settings) -> dict[str, Any]:
    dense = min(ours["n_dense"], ours["n_layers"])
    return {"mlp_layer_types": ["dense"] * dense + ["sparse"] * (ours["n_layers"] - dense)}


DENSE_FIRST = Together(("mlp_layer_types", "first_k_dense_replace"), _dense_first, _dense_first_keys)


def latent_attention_keys(ours: Settings) -> dict[str, Any]:
    """Returns the keys for the heads and rotary positions: `latent_attention` read backwards."""
    found = {"num_attention_heads": ours["n_heads"], "num_key_value_heads": ours["n_heads"], **rope().inverse_of(ours)}
    rule = ours["rope_scaling"]
    if isinstance(rule, Yarn) and rule.factor > 1 and ours["sharpness"] != 1:
        found["rope_scaling"]["mscale_all_dim"] = (math.sqrt(ours["sharpness"]) - 1) / (0.1 * math.log(rule.factor))
    return found


def _limited_keys(ours: Settings) -> dict[str, Any]:
    method = "greedy" if ours["n_groups"] == 1 else "group_limited_greedy"
    return {"topk_method": method, "n_group": ours["n_groups"], "topk_group": ours["top_groups"]}


_KEYS = {
    **without(ATTENTION, "num_attention_heads", "num_key_value_heads"),
    "hidden_act": SWIGLU,
    "q_lora_rank": To("q_rank", 1536),
    "kv_lora_rank": To("kv_rank", 512),
    "qk_nope_head_dim": To("nope_dim", 128),
    "qk_rope_head_dim": To("rope_dim", 64),
    "v_head_dim": To("v_dim", 128),
    "attention_bias": Only(False),
    "tie_word_embeddings": To("tie_embeddings", default=False),
    **unused("head_dim", "qk_head_dim"),  # computed from other keys, but see `latent_attention`
    **unused("output_router_logits", "aux_loss_alpha", "seq_aux", "ep_size"),
    "moe_layer_freq": Only(1),
}
ROTARY = ("num_attention_heads", "num_key_value_heads", *ROPE)
MTP_LAYER = ("model.layers.{n_layers}.*",)  # for multi-token prediction: files hold it behind the last layer
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
        Together(ROTARY, latent_attention, latent_attention_keys),
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
    together=(
        Together(ROTARY, partial(latent_attention, kv_heads=128), latent_attention_keys),
        groups(8, 4, 8),
    ),
    aliases={"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"},
    buffers=MTP_LAYER,
)
