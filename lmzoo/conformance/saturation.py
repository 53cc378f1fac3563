"""Finds whole numbers in a config that have an effect only up to some value, as in `min(config.window, 8)`.

The forms that are checked are small, so a setting is also tried with values far above theirs: two large values must
give two different models. Where larger values cannot mean anything, the config must refuse them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from lmzoo import configs, registry
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject, perturb
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig

LARGE = ((24, 48), (16, 32), (8, 16))  # the two values of the first pair that the config accepts must differ
SMALL = ((8, 16), (4, 8), (2, 4), (1, 2))  # of these, one pair shows that the setting has an effect at all
LAYERS = (16, 17)  # values of `n_layers`: larger ones take long
CONTEXT = 96  # tokens: more than a window of 48
ABRUPT = 1e-4  # change of logits by small values: if it is less, the effect may converge to zero without any limit
DRAWS = ((0, 1.0), (1, 1.0), (2, 5.0), (3, 30.0))  # seeds and sizes of random weights, tried before a verdict
DEEP = 50  # layers: a setting may count layers, of which a tiny model has few


def require_unbounded(form: Subject, name: str) -> None:
    """Raises `Fault` if the setting `name`, a whole number, has an effect for small values and none for large ones.

    `form` is a form in which it has an effect. The fields for the sizes of text and vocabulary are left out.
    """
    hint = configs.types_of(type(form.config))[name]
    if hint not in (int, int | None) or name in ("vocab_size", "context_length"):
        return
    large = _first_pair(form, name, (LAYERS,) if name == "n_layers" else LARGE)
    if large is None or _facts(form, large[0]) != _facts(form, large[1]) or _effect(form, large, *DRAWS[0]) != 0:
        return
    small = [pair for pair in (_pair(form, name, *values) for values in SMALL) if pair is not None]
    size = next((size for size in (_whole_effect(form, pair) for pair in small) if size), 0.0)
    if size < ABRUPT or any(_effect(form, large, *draw) for draw in DRAWS[1:]) or _deep_effect(form, name):
        return
    low, high = (getattr(config, name) for config in large)
    raise Fault(
        f"{name}={low} and {name}={high} give the same model, and smaller values do not; look at what limits {name}: "
        "use it as it is, or let the config refuse values above the limit"
    )


def _first_pair(form: Subject, name: str, values: Any, **others: int) -> tuple[ModelConfig, ModelConfig] | None:
    """Returns the configs of the first pair of values that the config accepts, or None."""
    pairs = (_pair(form, name, *both, **others) for both in values)
    return next((pair for pair in pairs if pair is not None), None)


def _pair(form: Subject, name: str, low: int, high: int, **others: int) -> tuple[ModelConfig, ModelConfig] | None:
    """Returns configs with both values, or None if the config refuses one of them."""
    try:
        long = dataclasses.replace(form.config, context_length=max(CONTEXT, form.context), **others)
        return dataclasses.replace(long, **{name: low}), dataclasses.replace(long, **{name: high})
    except ConfigError:
        return None


def _facts(form: Subject, config: ModelConfig) -> object:
    """Returns what can be compared without weights: the shapes of parameters, traits, the size of the state."""
    model = registry.blank_model(form.cls, config, device="meta")
    return [tuple(p.shape) for p in model.parameters()], model.traits, model.state_bytes(CONTEXT)


def _whole_effect(form: Subject, pair: tuple[ModelConfig, ModelConfig]) -> float:
    """Returns the largest change of logits from one config to the other, or 1 if their facts differ."""
    return 1.0 if _facts(form, pair[0]) != _facts(form, pair[1]) else _effect(form, pair, *DRAWS[0])


def _effect(form: Subject, pair: tuple[ModelConfig, ModelConfig], seed: int, scale: float) -> float:
    """Returns the largest change of logits from one config to the other, with the same weights."""
    first, second = (_logits(form, config, seed, scale) for config in pair)
    return (first - second).abs().max().item()


@torch.no_grad()
def _logits(form: Subject, config: ModelConfig, seed: int, scale: float) -> Tensor:
    model: LanguageModel = registry.build_model(form.cls, config, generator=torch.Generator().manual_seed(seed))
    perturb(model.double(), seed, scale)
    return model.eval()(form.tokens(1, CONTEXT, seed=seed)).logits


def _deep_effect(form: Subject, name: str) -> bool:
    """True if the setting has an effect in a deep model, or if the config refuses one."""
    if name == "n_layers" or not hasattr(form.config, "n_layers"):
        return False
    deep = _first_pair(form, name, LARGE, n_layers=DEEP)
    return deep is None or _facts(form, deep[0]) != _facts(form, deep[1]) or _effect(form, deep, *DRAWS[0]) != 0
