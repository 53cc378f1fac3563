"""Keys of config.json for rotary positions: their base, the share of a head that is rotated, rules for longer texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lmzoo.hf.architecture import Config, Settings, Together, refused
from lmzoo.hf.keys import without
from lmzoo.layers.rope_scaling import KINDS, LongRope, RopeScaling, Yarn

ROPE = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


def rope(
    theta: float = 10000.0,
    *,
    scaled: bool = True,
    fraction: str | None = None,
    share: float = 1.0,
    old: str = "",
    base: str = "rope_theta",
    width: int | None = None,
    default: Mapping[str, Any] | None = None,
) -> Together:
    """Returns the keys of rotary positions, `theta` being their default base.

    `scaled`: the family has the setting `rope_scaling`. `fraction` is the setting for the share of a head that is
    rotated, `share` its default and `old` another key for it; `base` is another key for the base, and `width` the
    default of `head_dim`, None being an equal share of the features. `default` are the parameters of a config.json
    without any; None: positions that are not scaled.
    """

    def settings(config: Config) -> dict[str, Any]:
        if default is not None and config.get("rope_parameters") is None and not config.table("rope_scaling"):
            config = Config({**config, "rope_parameters": {**default}})
        parameters = parameters_of(config)
        rotated = config.value(old or "partial_rotary_factor", share, float)
        rotated = parameters.value("partial_rotary_factor", rotated, float)
        if not 0 <= rotated <= 1:
            raise refused("partial_rotary_factor", rotated, "must be from 0 to 1")
        if fraction is None and rotated != 1:
            raise refused("partial_rotary_factor", rotated, "must be 1")
        equal = config.value("hidden_size", 0) // max(1, config.value("num_attention_heads", 1))
        head = config.value("head_dim", equal if width is None else width)
        if rotated == 1 and head % 2:
            raise refused("head_dim", head, "must be even to be rotated")
        if int(rotated * head) % 2:
            raise refused("partial_rotary_factor", rotated, "must give an even number of features to rotate")
        read = Config({"rope_theta": config.get(base)})  # under this name alone
        found = rope_settings(Config({**config, **read}), parameters, theta, scaled=scaled)
        ours = {"rope_theta": found["rope_theta"], "partial_rotary_factor": rotated}
        for key in without(ours, base, old or "partial_rotary_factor"):
            if config.value(key, ours[key], float) != ours[key]:
                raise refused(key, config[key], f"must be {ours[key]}: transformers reads {base} and {old}")
        return found if fraction is None else {**found, fraction: float(rotated)}

    def inverse(ours: Settings) -> dict[str, Any]:
        if default is not None and ours["rope_scaling"] is None:
            return {"rope_parameters": {"rope_type": "default", "rope_theta": ours["rope_theta"]}}
        found = {base: ours["rope_theta"], **(scaling_keys(ours["rope_scaling"]) if scaled else {})}
        return found if fraction is None else {**found, old or "partial_rotary_factor": ours[fraction]}

    return Together((*ROPE, base, *([old] if old else [])), settings, inverse)


def parameters_of(config: Config) -> Config:
    """Returns the parameters of rotary positions, in either spelling; empty if there are none."""
    return config.table("rope_scaling") or config.table("rope_parameters")


def with_parameters(config: Config, change: Callable[[Config], Mapping[str, Any]]) -> Config:
    """Returns the config with changed parameters of rotary positions, under the key that transformers reads."""
    key = "rope_scaling" if config.table("rope_scaling") else "rope_parameters"
    return Config({**config, key: {**change(config.table(key))}})


def rope_settings(config: Config, parameters: Config, theta: float, *, scaled: bool) -> dict[str, Any]:
    """Returns `rope_theta`, and with `scaled` also `rope_scaling`, for the parameters of one kind of layers."""
    theta = parameters.value("rope_theta", config.value("rope_theta", theta, float), float)
    text = scaling(config, parameters)
    if not scaled and text != "none":
        raise refused("rope_type", parameters.get("rope_type", parameters.get("type")), "must be 'default'")
    return {"rope_theta": float(theta), "rope_scaling": text} if scaled else {"rope_theta": float(theta)}


def ropes_by_kind(config: Config, theta: float, local_theta: float) -> dict[str, Any]:
    """Returns the rotary positions of layers with and without a window, in either spelling, for these default bases."""
    parameters = config.table("rope_parameters")
    everywhere, local = Config(parameters.table("full_attention")), Config(parameters.table("sliding_attention"))
    for key in parameters:
        if key not in ("full_attention", "sliding_attention"):
            raise refused("rope_parameters", {**parameters}, "must have full_attention and sliding_attention alone")
    everywhere |= config.table("rope_scaling")
    if scaling(config, local) != "none":
        raise refused("rope_type", local.get("rope_type"), "of sliding_attention must be 'default'")
    for each in (everywhere, local):
        for key, value in (("truncate", True), ("partial_rotary_factor", 1)):
            if each.get(key, value) != value:
                raise refused(key, each[key], f"must be {value}: transformers reads no other for each kind of layers")
    plain = Config({key: value for key, value in config.items() if key != "original_max_position_embeddings"})
    return {
        "rope_theta": everywhere.value("rope_theta", config.value("rope_theta", theta, float), float),
        "rope_scaling": scaling(plain, everywhere),
        "local_rope_theta": local.value("rope_theta", local_theta, float),
    }


def ropes_by_kind_keys(ours: Settings) -> dict[str, Any]:
    """Returns the key for rotary positions of layers with and without a window: `ropes_by_kind` read backwards."""
    local = {"rope_type": "default", "rope_theta": ours["local_rope_theta"]}
    return {"rope_parameters": {"full_attention": parameters_for(ours), "sliding_attention": local}}


def scaling(config: Config, parameters: Config) -> str:
    """Returns the rule for longer texts as lmzoo writes it (`lmzoo.layers.rope_scaling`)."""
    kind = parameters.value("rope_type", parameters.value("type", "default"))
    if kind not in _SCALINGS:
        raise refused("rope_type", kind, f"must be one of {', '.join(_SCALINGS)}")
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_SCALINGS[kind]}
    for key in parameters:
        if key not in known:
            raise refused(key, parameters[key], f"is not known with rope_type={kind!r}")
    if kind == "default":
        return "none"
    options: dict[str, object] = {}
    length = config.value("max_position_embeddings", 0)
    if "original_max_position_embeddings" in _SCALINGS[kind]:
        original = parameters.value("original_max_position_embeddings", length)
        options["original"] = original = config.value("original_max_position_embeddings", original)
        if parameters.get("factor") is None and kind != "llama3":
            parameters = Config({**parameters, "factor": max(1.0, length / max(1, original))})
    elif kind == "dynamic":
        options["original"] = length
    options |= {_NAMES[key]: _number(parameters, key) for key in _SCALINGS[kind] if key in _NAMES}
    if kind == "yarn":
        options["attention"] = _yarn_magnitude(parameters, parameters.value("factor", 1.0))
        options["whole"] = int(parameters.value("truncate", True))
    if kind == "longrope":
        options |= {name: _numbers(parameters, f"{name}_factor") for name in ("short", "long")}
        if parameters.get("attention_factor") is not None:
            options["attention"] = parameters.value("attention_factor", 1.0)
    return " ".join([kind, *(f"{name}={value}" for name, value in options.items())])


# The keys of each kind of rule, and their names in `lmzoo.layers.rope_scaling`.
_SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "beta_fast", "beta_slow", "original_max_position_embeddings"),
        *("attention_factor", "mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": ("factor", "short_factor", "long_factor", "original_max_position_embeddings", "attention_factor"),
}
_NAMES = {
    "factor": "factor",
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "beta_fast": "fast",
    "beta_slow": "slow",
}
_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0}


def scaling_keys(rule: RopeScaling | None) -> dict[str, Any]:
    """Returns the key for a rule for longer texts: `scaling` read backwards; nothing for one that only lmzoo has."""
    kind = next((name for name, cls in KINDS.items() if type(rule) is cls), "")
    if kind not in _SCALINGS:
        return {}
    found: dict[str, Any] = {"rope_type": kind}
    found |= {key: getattr(rule, _NAMES[key]) for key in _SCALINGS[kind] if key in _NAMES}
    if "original_max_position_embeddings" in _SCALINGS[kind]:
        found["original_max_position_embeddings"] = getattr(rule, "original")  # noqa: B009
    if isinstance(rule, Yarn):
        found |= {"attention_factor": rule.magnitude, **({} if rule.whole else {"truncate": False})}
    if isinstance(rule, LongRope):
        found |= {"short_factor": list(rule.short), "long_factor": list(rule.long)}
        found |= {} if rule.attention is None else {"attention_factor": rule.attention}
    return {"rope_scaling": found}


def parameters_for(ours: Settings) -> dict[str, Any]:
    """Returns the parameters of rotary positions, in the spelling of `rope_parameters`."""
    rule = scaling_keys(ours["rope_scaling"]).get("rope_scaling", {"rope_type": "default"})
    return {**rule, "rope_theta": ours["rope_theta"]}


def _number(parameters: Config, key: str) -> float:
    value = parameters.value(key, _DEFAULTS.get(key), float)
    if value == 0 and key in _DEFAULTS:  # as in transformers
        value = _DEFAULTS[key]
    if value is None:
        raise refused(key, None, "must be a number")
    return value


def _numbers(parameters: Config, key: str) -> str:
    """Returns a list of numbers as lmzoo writes it."""
    found = parameters.value(key, list[Any]())
    if not found or any(type(number) not in (int, float) for number in found):
        raise refused(key, parameters.get(key), "must be a list of numbers")
    return ",".join(map(repr, found))


def _yarn_magnitude(parameters: Config, factor: float) -> float:
    """Returns the factor of cosines and sines with YaRN."""
    given = parameters.value("attention_factor", None, float)
    if given is not None:
        return given
    mscale, everywhere = (parameters.value(key, 0.0, float) for key in ("mscale", "mscale_all_dim"))
    both = mscale and everywhere
    return yarn_magnitude(mscale, factor) / yarn_magnitude(everywhere, factor) if both else yarn_magnitude(1.0, factor)


def yarn_magnitude(scale: float, factor: float) -> float:
    """Returns the factor by which YaRN sharpens queries and keys, for texts longer by `factor`."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
