"""Hunyuan (dense) in transformers."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Architecture, Config, Settings, To, Together, Unread, Unused, refused
from lmzoo.hf.llama import BIASES, KEYS
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.rotary import ROPE, rope
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
    key = "rope_scaling" if config.table("rope_scaling") else "rope_parameters"
    parameters = config.table(key)
    alpha = parameters.value("alpha", 0.0, float)
    if parameters.get("rope_type", parameters.get("type")) != "dynamic" or not alpha:
        return dict(rope().settings(config))
    if alpha < 1:
        raise refused("alpha", alpha, "must be at least 1")
    plain = {"rope_type": "default", **({"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {})}
    return {**rope().settings(Config({**config, key: plain})), "rope_scaling": f"ntk factor={alpha}"}


def _positions_keys(ours: Settings) -> dict[str, Any]:
    rule, found = ours["rope_scaling"], rope().inverse_of(ours)
    if isinstance(rule, NTK):
        found["rope_scaling"] = {"rope_type": "dynamic", "factor": 1.0, "alpha": rule.factor}
    return found


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
        "use_qk_norm": Unread(True),
        "eod_token_id": Unused(),
    },
    together=(POSITIONS,),
    fixed={"late_qk_norm": True},
)
