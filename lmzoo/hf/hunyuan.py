"""Hunyuan (dense) in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Key, Settings, To, Together, Unread, checked, refused
from lmzoo.hf.keys import unread, unused
from lmzoo.hf.llama import BIASES, KEYS
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.rotary import ROPE, parameters_of, rope, with_parameters
from lmzoo.hf.weights import Weights
from lmzoo.layers.rope_scaling import NTK

_ATTENTION, _OURS = "model.layers.{i}.self_attn.", "blocks.{i}.0.inner."
WEIGHTS: Weights = {
    **LLAMA,
    f"{_OURS}late_q_norm.weight": f"{_ATTENTION}query_layernorm.weight",
    f"{_OURS}late_k_norm.weight": f"{_ATTENTION}key_layernorm.weight",
}


def _positions(config: Config) -> dict[str, Any]:
    """Returns the rotary positions. With `alpha`, the rule called dynamic does not depend on the length: it is NTK."""
    parameters = parameters_of(config)
    alpha = parameters.value("alpha", 0.0, float)
    if parameters.get("rope_type", parameters.get("type")) != "dynamic" or not alpha:
        return dict(rope().settings(config))
    if alpha < 1:
        raise refused("alpha", alpha, "must be at least 1")
    plain = with_parameters(config, lambda found: {"rope_type": "default", "rope_theta": found.get("rope_theta")})
    return {**rope().settings(plain), "rope_scaling": f"ntk factor={alpha}"}


def _positions_keys(ours: Settings) -> dict[str, Any]:
    rule, found = ours["rope_scaling"], rope().inverse_of(ours)
    if isinstance(rule, NTK):
        found["rope_scaling"] = {"rope_type": "dynamic", "factor": 1.0, "alpha": rule.factor}
    return found


def _equal_widths(config: Config) -> None:
    """Refuses a width of a head that differs from the one that transformers reads."""
    equal = config.value("hidden_size", 0) // max(1, config.value("num_attention_heads", 1))
    width = config.value("head_dim", equal)
    if config.value("attention_head_dim", width) != width:
        raise refused("attention_head_dim", config["attention_head_dim"], f"must be {width}")


# Of images, of other tokens, and of parts that are off.
_OTHERS = (
    *("eod_token_id", "mask_init_id", "im_start_id", "im_end_id", "im_newline_id", "text_start_id", "text_end_id"),
    *("image_token_id", "video_start_id", "video_end_id", "pad_id", "class_num", "pool_type", "org_vocab_size"),
    *("cla_share_factor", "dense_list", "anyres_pooling_size"),
)
HUNYUAN_UNREAD: dict[str, Key] = {
    "use_qk_norm": Unread(True),
    "norm_type": Unread("rms", ("hf_rms",)),
    **unread(False, "use_cla", "add_classification_head"),
    **unused(*_OTHERS),
}
POSITIONS = Together(ROPE, _positions, _positions_keys)
HUNYUAN_V1_DENSE = Architecture(
    model_type="hunyuan_v1_dense",
    classes=("HunYuanDenseV1ForCausalLM",),
    family="llama",
    weights=WEIGHTS,
    keys={
        **KEYS,
        "rms_norm_eps": To("norm_eps", 1e-5),
        "attention_bias": To("attention_bias", default=False, values=BIASES),
        **HUNYUAN_UNREAD,
    },
    together=(POSITIONS, checked(("attention_head_dim",), _equal_widths)),
    fixed={"late_qk_norm": True},
)
