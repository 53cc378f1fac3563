"""Chooses the model type of transformers that has all settings of a model, by reading its description backwards.

A setting that is dropped in silence would give another model. So each config.json is read again by the code that
imports it, and must give all settings of the model; otherwise the model is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmzoo import configs
from lmzoo.errors import CheckpointError, ConfigError
from lmzoo.hf.architecture import Architecture, Config
from lmzoo.hf.architectures import ARCHITECTURES
from lmzoo.hf.keys import WITHOUT_EFFECT
from lmzoo.hf.own import MODEL_TYPE
from lmzoo.layers.pattern import pattern
from lmzoo.layers.rope_scaling import LongRope, Yarn, parse_rope_scaling
from lmzoo.suggestions import suggest

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel, ModelConfig

TRAINING = ("dropout", "balance_loss")  # settings without effect on a trained model
# The numbers that None stands for in settings whose config keeps None.
_STANDS_FOR: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "head_dim": lambda settings: settings["d_model"] // settings["n_heads"],
    "query_scalar": lambda settings: settings["head_dim"],
    "ssm_head_dim": lambda settings: settings["d_model"] // settings["n_heads"],
    "embed_scale": lambda settings: math.sqrt(settings["d_model"]),
}
_PATTERNS = ("pattern", "feed_forward")
_SHOWN = 3  # settings that an error names


@dataclass(frozen=True)
class Fit:
    """A description of transformers that has all settings of a model, and the config.json of the model."""

    architecture: Architecture
    config: Config
    left_out: Mapping[str, Any]  # settings of `TRAINING` that the config.json does not have


def fitting(
    model: LanguageModel,
    model_type: str | None = None,
    problem: Callable[[str], str | None] = lambda _: None,
) -> Fit | None:
    """Returns the first model type that has all settings of a model, or the one that is named.

    `problem` returns what else is in the way of a model type, or None. The result None means lmzoo's own form: for a
    family that transformers does not know, or by the name "lmzoo". Raises `ConfigError` naming the settings for which
    no model type is known.
    """
    if model_type == MODEL_TYPE:
        return None
    candidates = [each for each in ARCHITECTURES.values() if each.family == model.family]
    if model_type is not None:
        candidates = [each for each in candidates if each.model_type == model_type]
        if not candidates:
            raise _no_such_type(model, model_type)
    if not candidates:
        return None
    problems: dict[str, list[str] | str] = {}
    for architecture in candidates:
        found = _attempt(architecture, model.config)
        if isinstance(found, Fit):
            other = problem(architecture.model_type)
            if other is None:
                return found
            found = [other]
        problems[architecture.model_type] = found
    raise _no_type_has(model.family, problems)


def _no_type_has(family: str, problems: Mapping[str, list[str] | str]) -> ConfigError:
    """Returns the error for the settings that stand in the way of the nearest of several model types."""
    counts = {  # other layers are farther away than another setting
        model_type: sum(2 if text.startswith(_PATTERNS) else 1 for text in found)
        for model_type, found in problems.items()
        if isinstance(found, list)
    }
    nearest = min(counts or problems, key=lambda model_type: counts.get(model_type, 0))
    found = problems[nearest]
    if isinstance(found, str):
        shown = found
    else:
        shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    known = f"{family} ({', '.join(problems)}; nearest: {nearest})"
    which = f"no model type of transformers for {known} has" if len(problems) > 1 else f"{nearest} does not have"
    return ConfigError(f"{shown}: {which} this; the type {MODEL_TYPE}, lmzoo's own form, has every setting")


def _no_such_type(model: LanguageModel, model_type: str) -> ConfigError:
    known = [each.model_type for each in ARCHITECTURES.values() if each.family == model.family]
    known.append(MODEL_TYPE)
    return ConfigError(
        f"type={model_type!r} must be one of {', '.join(known)} for the family {model.family}"
        f"{suggest(model_type, known)}"
    )


def _attempt(architecture: Architecture, config: ModelConfig) -> Fit | list[str] | str:
    """Returns the config.json of a model in an architecture, the settings that it lacks, or another error."""
    if not architecture.can_be_written:
        return f"{architecture.model_type} can only be imported"
    ours = resolved(config)
    keys = Config(json.loads(json.dumps(architecture.config(ours))))
    try:
        theirs = configs.build(type(config), architecture.settings(keys, WITHOUT_EFFECT))
    except (CheckpointError, ConfigError) as error:
        return str(error)
    differing = differences(config, theirs)
    problems = [_shown(name, config, ours) for name in differing if name not in TRAINING]
    left_out = {name: ours[name] for name in differing if name not in architecture.training.values()}
    return problems or Fit(architecture, keys, left_out)


def differences(one: ModelConfig, other: ModelConfig) -> list[str]:
    """Returns the names of the settings in which two configs of one class describe different models."""
    settings, others = resolved(one), resolved(other)
    return [name for name, value in settings.items() if not _same(value, others[name])]


def resolved(config: ModelConfig) -> dict[str, Any]:
    """Returns the settings of a config in one form: a number for None, a word for each layer of a pattern, and rules.

    Two configs describe the same model if these are equal.
    """
    settings = configs.to_dict(config)
    for name in _PATTERNS:
        if name in settings:
            text = settings[name]
            settings[name] = pattern(text, settings["n_layers"], re.findall(r"[^\s*]+", text))
    if settings.get("window", 0) is None and "pattern" in settings:  # without a window, both see all tokens
        settings["pattern"] = ["full" if word == "rope" else word for word in settings["pattern"]]
    if "rope_scaling" in settings:
        rule = parse_rope_scaling(settings["rope_scaling"])
        if isinstance(rule, (Yarn, LongRope)):
            rule = replace(rule, attention=rule.magnitude)
        settings["rope_scaling"] = rule
    for name, number in _STANDS_FOR.items():
        if name in settings and settings[name] is None:
            settings[name] = number(settings)
    return settings


def _same(one: object, other: object) -> bool:
    """True for equal values; numbers may differ in the last digits, after a formula and its inverse."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    return one == other


def _shown(name: str, config: ModelConfig, ours: Mapping[str, Any]) -> str:
    """Returns a setting as text: as it was given, or the number that None stands for."""
    value = getattr(config, name)
    return f"{name}={ours[name] if value is None else value!r}"
