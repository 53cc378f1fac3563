"""Small models for the checks: any family, class or instance is reduced to a model that is checked in seconds.

Sizes are reduced by the names of the config's fields; everything else in the config stays as it is. Enough layers are
kept that every kind of block occurs. Weights are perturbed before a check looks at what a model computes, because a
weight of zero or one can hide a mistake.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo import configs, registry
from lmzoo.conformance.fresh import FreshProcess
from lmzoo.errors import ConfigError
from lmzoo.layers.stack import kind
from lmzoo.model import LanguageModel, ModelConfig

VOCAB = 13  # unlike every other size, so that a mix-up of axes is an error and not a coincidence
CONTEXT = 24  # more than one chunk of a chunked scan, and more than two windows
LAYERS = 2  # the minimum: a window of 5 over 2 layers reaches 9 tokens back, well inside the context
# The maximum of each size. `n_layers` is chosen by `fewest_layers`.
CEILINGS: Mapping[str, int] = {
    "d_model": 32,
    "n_heads": 4,
    "n_kv_heads": 4,
    "head_dim": 8,
    "d_ff": 128,  # the default is at most 4 d_model
    "d_state": 8,
    "window": 5,
    "n_experts": 4,
}
# Options to switch on in every family that has them.
OPTIONS: Mapping[str, Any] = {"window": 5, "n_kv_heads": 2}


class Subject:
    """A model class with a small config; `model()` constructs a new model.

    `settings` is the full config, from which `config` is reduced.
    """

    def __init__(self, cls: type[LanguageModel], settings: Mapping[str, Any], name: str) -> None:
        self.cls, self.settings, self.name = cls, dict(settings), name
        self.config = small_config(cls, self.settings)
        self.instance: LanguageModel | None = None  # a copy of the caller's own model, if it is small enough
        self.is_variant = False  # True for what `varied` returns
        self.fresh_process: FreshProcess | None = None  # started early for the check `save_and_load`
        self._variants: list[Subject] | None = None  # made once: their depth is found by building models

    def model(self, *, perturbed: bool = True, dropout: float = 0.0, seed: int = 0, **overrides: Any) -> LanguageModel:
        """Constructs a float32 model on the CPU in eval mode; torch's global random state stays unchanged.

        `perturbed=False` keeps the initial weights. `dropout` sets all dropout rates. `overrides` change the config.
        """
        config = dataclasses.replace(self.config, **overrides) if overrides else self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if perturbed and self.instance is not None and not overrides:
                model = copy.deepcopy(self.instance)
            else:
                model = registry.build_model(self.cls, config, generator=torch.Generator().manual_seed(seed))
        if perturbed:
            perturb(model, seed)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, dropout)
        return model.eval()

    def tokens(self, B: int, T: int, seed: int = 0) -> Tensor:
        """Returns random token ids (B, T), the same for the same arguments."""
        generator = torch.Generator().manual_seed(1000 * T + 10 * B + seed)
        return torch.randint(self.config.vocab_size, (B, T), generator=generator)

    @property
    def context(self) -> int:
        """The context length of the small config."""
        return self.config.context_length

    def varied(self) -> list[Subject]:
        """Returns subjects with other settings, to run code that the plain config does not (a window, a bias).

        All booleans are inverted in one variant, or in a variant each where the config refuses that; each of `OPTIONS`
        is switched on in its own. A config can name more variants in `checked: ClassVar[tuple[dict, ...]]`. Raises
        `ConfigError` for a variant in `checked` that the config refuses.
        """
        if self._variants is None:
            self._variants = self._make_variants()
        return self._variants

    def _make_variants(self) -> list[Subject]:
        now = configs.to_dict(self.config)
        inverted = {name: not value for name, value in now.items() if isinstance(value, bool)}
        options = [{name: value} for name, value in OPTIONS.items() if now.get(name, value) != value]
        variants = self._allowed([inverted]) or self._allowed([{name: value} for name, value in inverted.items()])
        variants += self._allowed(options)
        return variants + [self._with(changes) for changes in getattr(type(self.config), "checked", ())]

    def _allowed(self, candidates: Iterable[Mapping[str, Any]]) -> list[Subject]:
        """Returns the variants with these changes, without those that the config refuses."""
        variants: list[Subject] = []
        for changes in candidates:
            with suppress(ConfigError):
                variants += [self._with(changes)] if changes else []
        return variants

    def _with(self, changes: Mapping[str, Any]) -> Subject:
        name = ", ".join(f"{field}={value}" for field, value in changes.items())
        variant = Subject(self.cls, {**self.settings, **changes}, f"{self.name} with {name}")
        variant.is_variant = True
        return variant

    def resized(self) -> list[dict[str, Any]]:
        """Returns overrides for two other sizes of the model."""
        config = self.config
        changes: list[dict[str, Any]] = []
        grown = {"d_model": 2, "n_layers": 1.5, "d_ff": 1.5, "d_state": 2}
        for names in (("d_model",), ("n_layers", "d_ff", "d_state"), ("vocab_size",), ("context_length",)):
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


def perturb(model: LanguageModel, seed: int = 0) -> None:
    """Adds noise to every parameter: standard deviation 1/sqrt(last dimension) for matrices, 0.1 for vectors."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.1 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(std * torch.randn(parameter.shape, generator=generator).to(parameter))


def subject(target: LanguageModel | type[LanguageModel] | str) -> Subject:
    """Returns the subject for a model, a class, or a registered name (`family` or `family.preset`)."""
    if isinstance(target, str):
        family, preset = registry.split_name(target)
        cls = registry.model_class(family.name)
        return Subject(cls, dict(preset.model) if preset else _family_settings(cls), target)
    if isinstance(target, type) and issubclass(target, LanguageModel):
        return Subject(target, _family_settings(target), target.family or target.__name__)
    if not isinstance(target, LanguageModel):
        raise ConfigError(f"model={target!r} must be a registered name, a LanguageModel class or a LanguageModel")
    cls = type(target)
    made = Subject(cls, configs.to_dict(target.config), target.family or cls.__name__)
    # A model that is small except for its depth is copied: its layers may have been changed after construction.
    small, given = configs.to_dict(made.config), configs.to_dict(target.config)
    if {**small, "n_layers": None} == {**given, "n_layers": None}:
        made.config = target.config
        made.instance = copy.deepcopy(target).float().cpu()
    return made


def _family_settings(cls: type[LanguageModel]) -> dict[str, Any]:
    """Returns the settings of the family's preset `tiny`, if it has one, with at least the default depth."""
    family = registry.families().get(cls.family) if cls.family else None
    preset = family.presets.get("tiny") if family else None
    settings = dict(preset.model) if preset else {}
    default = next((f.default for f in dataclasses.fields(cls.config_class) if f.name == "n_layers"), None)
    if isinstance(default, int):
        settings["n_layers"] = max(default, settings.get("n_layers", default))
    return settings


def small_config(cls: type[LanguageModel], settings: Mapping[str, Any]) -> ModelConfig:
    """Returns the config of `settings` with sizes reduced to `CEILINGS`, as many as the config's rules allow."""
    fields = {field.name: field.default for field in dataclasses.fields(cls.config_class)}
    settings = {**settings, "vocab_size": min(settings.get("vocab_size", VOCAB), VOCAB)}
    settings["context_length"] = min(settings.get("context_length", CONTEXT), CONTEXT)
    cut = {}
    for name, ceiling in CEILINGS.items():
        value = settings.get(name, fields.get(name))
        if name in fields and isinstance(value, int) and value > ceiling:
            cut[name] = ceiling
    try:
        configs.build(cls.config_class, {**settings, **cut})
        settings |= cut
    except ConfigError:
        for name, value in cut.items():  # one at a time: a rule between fields may forbid some of the reductions
            try:
                configs.build(cls.config_class, {**settings, name: value})
            except ConfigError:
                continue
            settings[name] = value
    if "n_layers" in fields:
        settings["n_layers"] = fewest_layers(cls, settings)
    return configs.build(cls.config_class, settings)


def fewest_layers(cls: type[LanguageModel], settings: Mapping[str, Any]) -> int:
    """Returns the smallest `n_layers` >= `LAYERS` with every kind of block that the model of `settings` has."""
    config = configs.build(cls.config_class, settings)
    full: int = configs.to_dict(config)["n_layers"]
    try:
        wanted = set(_kinds(cls, config))
    except Exception:  # it cannot be built on the meta device: the checks `construction` and `meta_device` report why
        return min(LAYERS, full)
    for n in range(LAYERS, full):
        try:
            if wanted <= set(_kinds(cls, configs.build(cls.config_class, {**settings, "n_layers": n}))):
                return n
        except Exception:
            continue  # the config refuses this depth
    return full


def _kinds(cls: type[LanguageModel], config: ModelConfig) -> Iterator[Hashable]:
    """Returns the kind of each block of the model."""
    with torch.random.fork_rng(devices=[]):
        model = registry.blank_model(cls, config, device="meta")
    return map(kind, _blocks(model))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the blocks of a model: the members of its outermost module lists, such as `Stack`."""
    for child in module.children():
        yield from child if isinstance(child, (nn.ModuleList, nn.Sequential)) else _blocks(child)
