"""The model under test, small: how any family, class or instance becomes a model that is checked in seconds.

Sizes are cut down by the names of the config's fields; everything else in the config stays as it is. The model's
weights are shaken before a check looks at what it computes: a zero table or a gain of one would hide a wrong path.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo import configs, registry
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig

VOCAB = 13  # unlike every other size, so that a mix-up of axes is an error and not a coincidence
CONTEXT = 24  # more than one chunk of a chunked scan, more than two windows
# The most each size may be. A window of 5 over 2 layers reaches 9 tokens back: well inside the context.
CEILINGS: Mapping[str, int] = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "head_dim": 8,
    "d_ff": 48,
    "d_hidden": 32,
    "d_inner": 64,
    "d_embedding": 16,
    "d_state": 8,
    "window": 5,
}
VARIANTS: Mapping[str, Any] = {"window": 5}  # options that are off by default; those that are true or false are turned


class Subject:
    """What is checked: a class and a small config of it; `model()` makes a fresh one."""

    def __init__(self, cls: type[LanguageModel], config: ModelConfig, name: str) -> None:
        self.cls, self.config, self.name = cls, config, name
        self.instance: LanguageModel | None = None  # when the caller's own model is small enough to be copied

    def model(self, *, shaken: bool = True, dropout: float = 0.0, seed: int = 0, **overrides: Any) -> LanguageModel:
        """A fresh float32 model on the CPU in eval mode; the global random state is left as it was.

        `shaken=False` leaves the weights as they begin. Dropout is off unless asked for. `overrides` change the config.
        """
        config = dataclasses.replace(self.config, **overrides) if overrides else self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if shaken and self.instance is not None and not overrides:
                model = copy.deepcopy(self.instance)
            else:
                model = self.cls(config)
                model.init_weights(torch.Generator().manual_seed(seed))
        if shaken:
            shake(model, seed)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, dropout)
        return model.eval()

    def tokens(self, B: int, T: int, seed: int = 0) -> Tensor:
        """Random token ids (B, T), the same for the same arguments."""
        generator = torch.Generator().manual_seed(1000 * T + 10 * B + seed)
        return torch.randint(self.config.vocab_size, (B, T), generator=generator)

    @property
    def context(self) -> int:
        return self.config.context_length

    def varied(self) -> list[Subject]:
        """The same with one option changed each: code that the plain config never reaches (a window, a bias)."""
        others = []
        for field in dataclasses.fields(self.config):
            before = getattr(self.config, field.name)
            value = not before if isinstance(before, bool) else VARIANTS.get(field.name, before)
            if value == before:
                continue
            try:
                config = dataclasses.replace(self.config, **{field.name: value})
            except ConfigError:
                continue  # the family forbids this combination
            others.append(Subject(self.cls, config, f"{self.name} with {field.name}={value}"))
        return others

    def resized(self) -> list[dict[str, Any]]:
        """Overrides that give two other sizes of the model."""
        config = self.config
        changes: list[dict[str, Any]] = []
        grown = {"d_model": 2, "d_hidden": 2, "n_layers": 1.5, "d_ff": 1.5, "d_state": 2}
        for names in (("d_model", "d_hidden"), ("n_layers", "d_ff", "d_state"), ("vocab_size",), ("context_length",)):
            change = {
                n: int(getattr(config, n) * grown.get(n, 2)) for n in names if getattr(config, n, None) is not None
            }
            try:
                dataclasses.replace(config, **change)
            except ConfigError:
                continue
            if change:
                changes.append(change)
        return changes[:2]


def shake(model: LanguageModel, seed: int = 0) -> None:
    """Add noise to every parameter: matrices so much that a unit input gives a unit output, vectors a tenth."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.1 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(std * torch.randn(parameter.shape, generator=generator).to(parameter))


def subject(target: LanguageModel | type[LanguageModel] | str) -> Subject:
    """The subject for a model, a class, or a registered name (`family` or `family.preset`)."""
    if isinstance(target, str):
        family, preset = registry.split_name(target)
        preset = preset or family.presets.get("tiny")
        return Subject(*_small(registry.model_class(family.name), dict(preset.model) if preset else {}), target)
    if isinstance(target, type) and issubclass(target, LanguageModel):
        family = registry.families().get(target.family) if target.family else None
        preset = family.presets.get("tiny") if family else None
        return Subject(*_small(target, dict(preset.model) if preset else {}), target.family or target.__name__)
    if not isinstance(target, LanguageModel):
        raise ConfigError(f"model={target!r} must be a registered name, a LanguageModel class or a LanguageModel")
    cls = type(target)
    made = Subject(*_small(cls, configs.to_dict(target.config)), target.family or cls.__name__)
    if configs.to_dict(made.config) == configs.to_dict(target.config):
        made.instance = copy.deepcopy(target).float().cpu()
    return made


def _small(cls: type[LanguageModel], settings: dict[str, Any]) -> tuple[type[LanguageModel], ModelConfig]:
    """The class with a config whose known sizes are at most their ceilings; as many of them as its rules allow."""
    fields = {field.name: field.default for field in dataclasses.fields(cls.config_class)}
    settings = {**settings, "vocab_size": min(settings.get("vocab_size", VOCAB), VOCAB)}
    settings["context_length"] = min(settings.get("context_length", CONTEXT), CONTEXT)
    cut = {}
    for name, ceiling in CEILINGS.items():
        value = settings.get(name, fields.get(name))
        if name in fields and isinstance(value, int) and value > ceiling:
            cut[name] = ceiling
    try:
        return cls, configs.build(cls.config_class, {**settings, **cut})
    except ConfigError:
        pass
    for name, value in cut.items():  # one at a time: a rule between fields may forbid some of them
        try:
            configs.build(cls.config_class, {**settings, name: value})
        except ConfigError:
            continue
        settings[name] = value
    return cls, configs.build(cls.config_class, settings)
