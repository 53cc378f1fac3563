"""The forms of a model that are checked: any family, class or instance, in sizes that are checked in seconds.

Weights are perturbed before a check looks at what a model computes, because a weight of zero or one can hide a mistake.
"""

from __future__ import annotations

import dataclasses
import tempfile
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmzoo import configs, registry
from lmzoo.conformance.clones import clone
from lmzoo.conformance.fresh import FreshProcess
from lmzoo.conformance.report import Fault
from lmzoo.conformance.sizes import LARGE, TINY, Sizes, sized_config
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig

# Options to switch on in every family that has them.
OPTIONS: Mapping[str, Any] = {"window": 5, "n_kv_heads": 2}
CALM = (0.0, 0.3)  # of the usual random weights
# Size of the random text that a model without parameters is fitted to: of the tiny vocabulary, it has all pairs often.
FITTED_ROWS, FITTED_TOKENS = 16, 512


@dataclass(frozen=True)
class Sent:
    """A saved model that a fresh process was asked to load, and the logits expected from it."""

    folder: tempfile.TemporaryDirectory[str]
    logits_BTV: Tensor


class Subject:
    """A model class with a config of the given sizes; `model()` constructs a new model.

    `settings` is the full config, from which `config` is made.
    """

    def __init__(self, cls: type[LanguageModel], settings: Mapping[str, Any], name: str, sizes: Sizes = TINY) -> None:
        self.cls, self.settings, self.name = cls, dict(settings), name
        self.config = sized_config(cls, self.settings, sizes)
        self.own: LanguageModel | None = None  # a copy of the caller's own model, with its weights and sizes
        self.instance: LanguageModel | None = None  # the same, if it is small enough to be checked as the tiny form
        self.is_variant = False  # True for what `varied` returns
        self.changes: set[str] = set()  # the settings in which a variant differs
        self.fresh_process: FreshProcess | None = None  # started early for the check `save_and_load`
        self.sent: Sent | None = None  # what the fresh process was asked to load
        self.seed = 0  # of the random shapes
        self.thorough = False  # more random shapes, and all variants in the large form
        self._made: dict[object, LanguageModel] = {}  # what `model` clones, by its arguments
        self._variants: list[Subject] | None = None  # made once: their depth is found by building models
        self._large: list[Subject] | None = None
        self._neighbors: list[tuple[str, ModelConfig]] | None = None

    def model(self, *, perturbed: bool = True, dropout: float = 0.0, seed: int = 0, **overrides: Any) -> LanguageModel:
        """Returns a new float32 model on the CPU in eval mode; torch's global random state stays unchanged.

        `perturbed=False` keeps the initial weights. `dropout` sets all dropout rates. `overrides` change the config. A
        model is constructed once for the same arguments, and cloned after that, which is much quicker.
        """
        key = (perturbed, seed, tuple(sorted(overrides.items())))
        if key not in self._made:
            self._made[key] = self._make(perturbed, seed, overrides)
        model = clone(self._made[key])
        _set_dropout(model, dropout)
        return model.eval()

    def calm(self) -> list[LanguageModel]:
        """Returns float64 models near the initial weights, if branches on values are declared; else none.

        How often such a model computes something (until values no longer change, or a limit is reached) depends on the
        text there; with perturbed weights it often is the most possible for every text.
        """
        made = []
        for scale in CALM if self.model().traits.data_dependent_shapes else ():
            model = self.model(perturbed=False).double()
            perturb(model, scale=scale)
            made.append(model)
        return made

    def dropping(self, rate: float) -> LanguageModel:
        """Returns the model in eval mode with all dropout rates, of the config and of its modules, set to `rate`."""
        rates = {name: rate for name, value in configs.to_dict(self.config).items() if _is_rate(name, value)}
        if not rates or self.instance is not None:
            return self.model(dropout=rate)
        try:
            model = self._make(True, 0, rates)
        except ConfigError:
            return self.model(dropout=rate)
        _set_dropout(model, rate)
        return model.eval()

    def _make(self, perturbed: bool, seed: int, overrides: Mapping[str, Any]) -> LanguageModel:
        """Constructs a model for `model`."""
        config = dataclasses.replace(self.config, **overrides) if overrides else self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if perturbed and self.instance is not None and not overrides:
                model = clone(self.instance)
            else:
                model = registry.build_model(self.cls, config, generator=torch.Generator().manual_seed(seed))
        if perturbed:
            perturb(model, seed)
        return model

    def tokens(self, B: int, T: int, seed: int = 0) -> Tensor:
        """Returns random token ids (B, T), the same for the same arguments."""
        generator = torch.Generator().manual_seed(1000 * T + 10 * B + seed)
        return torch.randint(self.config.vocab_size, (B, T), generator=generator)

    def own_tokens(self, B: int, T: int, seed: int = 0) -> Tensor:
        """Returns random token ids (B, T) for the caller's own model."""
        assert self.own is not None
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.own.config.vocab_size, (B, T), generator=generator)

    @property
    def context(self) -> int:
        """The context length of the small config."""
        return self.config.context_length

    def varied(self) -> list[Subject]:
        """Returns subjects with other settings, to run code that the plain config does not (a window, a bias).

        All booleans are inverted in one variant, or in a few where the config refuses that; each of `OPTIONS` is
        switched on in its own, and what can be None is switched off. A config can name more variants in
        `checked: ClassVar[tuple[dict, ...]]`; one that changes nothing is left out, and so is one that the settings of
        a caller's model exclude. Raises `ConfigError` for a variant in `checked` that the config always refuses.
        """
        if self._variants is None:
            self._variants = self._make_variants()
        return self._variants

    def _make_variants(self) -> list[Subject]:
        now = configs.to_dict(self.config)
        inverted = {name: not value for name, value in now.items() if isinstance(value, bool)}
        options = [{name: value} for name, value in OPTIONS.items() if now.get(name, value) != value]
        variants = self._allowed([inverted]) or self._allowed(self._together(inverted))
        variants += self._allowed(options)
        off = {name: None for name in now if self._can_be_off(name)}
        variants += self._allowed([off]) or self._allowed(self._together(off))
        checked = [changes for changes in getattr(type(self.config), "checked", ()) if {**now, **changes} != now]
        for changes in checked:
            try:
                variants.append(self._with(changes))
            except ConfigError:  # the settings of a caller's model may exclude it; those of the family must not
                Subject(self.cls, {**_family_settings(self.cls), **changes}, self.name)
        return variants

    def _can_be_off(self, name: str) -> bool:
        """True for a setting that may be None, and then stays None: for others None means a default."""
        optional = type(None) in typing.get_args(configs.types_of(type(self.config))[name])
        if not optional or getattr(self.config, name) is None:
            return False
        change: dict[str, Any] = {name: None}
        try:
            off = dataclasses.replace(self.config, **change)
        except ConfigError:
            return False
        return getattr(off, name) is None

    def _together(self, changes: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the changes in groups that the config allows: each in the first group in which it is allowed."""
        groups: list[dict[str, Any]] = []
        for name, value in changes.items():
            group = next((group for group in groups if self._allowed([{**group, name: value}])), None)
            if group is None:
                groups.append({name: value})
            else:
                group[name] = value
        return groups

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
        variant.is_variant, variant.changes = True, set(changes)
        return variant

    def large(self) -> list[Subject]:
        """Returns the large form, and the large form with a window if the config has that option switched off.

        In a thorough check also the large form of every variant. Raises `Fault` if the config refuses the lengths.
        """
        if self._large is None:
            self._large = [self._large_form(self.settings, self.name)]
            window = LARGE.fields["window"]
            if configs.to_dict(self._large[0].config).get("window", 0) is None:
                settings = {**self.settings, "window": window}
                self._large.append(self._large_form(settings, f"{self.name} with window={window}"))
            for variant in self.varied() if self.thorough else ():
                self._large.append(self._large_form(variant.settings, variant.name))
        return self._large

    def _large_form(self, settings: Mapping[str, Any], name: str) -> Subject:
        refused = ""
        for length in (LARGE.context_length, 512):  # some models need a power of two
            try:
                sizes = dataclasses.replace(LARGE, context_length=length)
                return Subject(self.cls, settings, f"{name} in its large form", sizes)
            except ConfigError as error:
                refused = str(error)
        raise Fault(f"the config refuses context lengths of {LARGE.context_length} and 512 tokens: {refused}")

    def neighbors(self) -> list[tuple[str, ModelConfig]]:
        """Returns configs that differ from this one in one field, with the name of the field; a few for each field.

        Only values that the config accepts are used. The vocabulary stays the same. So does the context length of a
        model that extrapolates: its logits do not depend on it.
        """
        if self._neighbors is None:
            self._neighbors = []
            for name, value in configs.to_dict(self.config).items():
                kept = name == "vocab_size" or (name == "context_length" and self.model().traits.extrapolates)
                for other in () if kept else _other_values(type(self.config), name, value):
                    with suppress(ConfigError):
                        config = dataclasses.replace(self.config, **{name: other})
                        self._neighbors += [(name, config)] if config != self.config else []
        return self._neighbors

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


def _other_values(cls: type[ModelConfig], name: str, value: Any) -> list[Any]:
    """Returns other values of a config's field: some of them the config may refuse."""
    hint = configs.types_of(cls)[name]
    options = [option for option in (hint, *typing.get_args(hint)) if typing.get_origin(option) is Literal]
    if options:
        return [other for option in options for other in typing.get_args(option) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value, value + 1, value // 2, 1]
    if isinstance(value, float):
        return [2 * value, value / 2, value + 0.1]
    return [2, 4, 0.5, True] if value is None else []


def perturb(model: LanguageModel, seed: int = 0, scale: float = 1.0) -> None:
    """Adds noise to every parameter: standard deviation 1/sqrt(last dimension) for matrices, 0.1 for vectors.

    `scale` multiplies the noise. A model with `trainable=False` is fitted to a random text instead.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    if not model.traits.trainable:
        model.fit(torch.randint(model.config.vocab_size, (FITTED_ROWS, FITTED_TOKENS), generator=generator))
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.1 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(scale * std * torch.randn(parameter.shape, generator=generator).to(parameter))


def _is_rate(name: str, value: object) -> bool:
    return isinstance(value, float) and any(part in name for part in ("dropout", "pdrop", "drop_rate", "drop_path"))


def _set_dropout(model: nn.Module, rate: float) -> None:
    """Sets every dropout rate, also those that a layer keeps in an attribute of its own."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, rate)


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
    made.own = clone(target).float().cpu().eval()
    # A model that is small except for its depth is copied: its layers may have been changed after construction.
    small, given = configs.to_dict(made.config), configs.to_dict(target.config)
    ignored = {name: None for name in given if name == "n_layers" or "dropout" in name}
    if {**small, **ignored} == {**given, **ignored}:
        made.config = target.config
        made.instance = made.own
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
