"""Latent attention, as in DeepSeek: its weights, and its keys for ranks, widths, heads and rotary positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lmzoo.hf.architecture import Config, Key, Settings, To, Together, refused
from lmzoo.hf.layouts import Neighbors, Source
from lmzoo.hf.rotary import ROPE, parameters_of, rope, yarn_magnitude
from lmzoo.hf.weights import Weights
from lmzoo.layers.rope_scaling import Yarn

_OURS, _THEIRS = "blocks.{i}.0.inner.", "model.layers.{i}.self_attn."
SHARED: dict[str, Source] = {  # by both forms of queries
    f"{_OURS}kv_down.weight": Neighbors(f"{_THEIRS}kv_a_proj_with_mqa.weight", "rope_dim"),
    f"{_OURS}kv_norm.weight": f"{_THEIRS}kv_a_layernorm.weight",
    f"{_OURS}kv_up.weight": f"{_THEIRS}kv_b_proj.weight",
    f"{_OURS}out.weight": f"{_THEIRS}o_proj.weight",
}
DIRECT: dict[str, Source] = {f"{_OURS}q.weight": Neighbors(f"{_THEIRS}q_proj.weight", "rope_dim", "n_heads")}
LOW_RANK: dict[str, Source] = {
    f"{_OURS}q_down.weight": f"{_THEIRS}q_a_proj.weight",
    f"{_OURS}q_norm.weight": f"{_THEIRS}q_a_layernorm.weight",
    f"{_OURS}q.weight": Neighbors(f"{_THEIRS}q_b_proj.weight", "rope_dim", "n_heads"),
}
KEYS: dict[str, Key] = {
    "q_lora_rank": To("q_rank", 1536),
    "kv_lora_rank": To("kv_rank", 512),
    "qk_nope_head_dim": To("nope_dim", 128),
    "qk_rope_head_dim": To("rope_dim", 64),
    "v_head_dim": To("v_dim", 128),
}


def in_halves(weights: Weights) -> Weights:
    """Returns the names where rotary pairs are halves, as in lmzoo, and not neighbors."""
    return {name: source.part if isinstance(source, Neighbors) else source for name, source in weights.items()}


def names_of(weights: Weights, rank: int | None = 1536, *, halves: bool = False) -> Callable[[Config], Weights]:
    """Returns the names for a config: `q_lora_rank`, with this default, decides how queries are projected.

    `weights` has queries of low rank. Rotary pairs are neighbors, unless by `halves` or the key `rope_interleave`.
    """

    def names(config: Config) -> Weights:
        found = weights if config.get("q_lora_rank", rank) is not None else {**weights, **DIRECT}
        return found if config.get("rope_interleave", not halves) else in_halves(found)

    return names


def full_heads(heads: int = 0, kv_heads: int | None = None) -> Together:
    """Returns the keys of heads that have keys and values of their own. The numbers are defaults."""

    def settings(config: Config) -> dict[str, Any]:
        count, found = config.value("num_attention_heads", heads), kv_heads
        if "num_key_value_heads" in config:
            found = config.value("num_key_value_heads", count)
        if found not in (None, count):
            raise refused("num_key_value_heads", found, f"must be num_attention_heads={count}")
        return {"n_heads": count}

    def inverse(ours: Settings) -> dict[str, Any]:
        return {"num_attention_heads": ours["n_heads"], "num_key_value_heads": ours["n_heads"]}

    return Together(("num_attention_heads", "num_key_value_heads"), settings, inverse)


def latent_attention(kv_heads: int | None = None) -> Together:
    """Returns the keys of heads and rotary positions; YaRN also sharpens the scores. `kv_heads` is a default."""
    heads = full_heads(kv_heads=kv_heads)

    def settings(config: Config) -> Mapping[str, Any]:
        counts, parameters, width = heads.settings(config), parameters_of(config), config.value("qk_rope_head_dim", 64)
        if config.value("head_dim", width) != width:  # transformers takes it for the rotated width
            raise refused("head_dim", config["head_dim"], f"must be qk_rope_head_dim={width}")
        found = {**counts, **rope().settings(Config({**config, "head_dim": width}))}
        everywhere = parameters.value("mscale_all_dim", 0.0, float)
        if everywhere and found["rope_scaling"] != "none":
            found["sharpness"] = yarn_magnitude(everywhere, parameters.value("factor", 1.0, float)) ** 2
        return found

    def inverse(ours: Settings) -> dict[str, Any]:
        found, rule = {**heads.inverse_of(ours), **rope().inverse_of(ours)}, ours["rope_scaling"]
        if isinstance(rule, Yarn) and rule.factor > 1 and ours["sharpness"] != 1:
            found["rope_scaling"]["mscale_all_dim"] = (math.sqrt(ours["sharpness"]) - 1) / (0.1 * math.log(rule.factor))
        return found

    return Together((*heads.keys, *ROPE), settings, inverse)
