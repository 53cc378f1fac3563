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
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo import configs, registry
from lmzoo.conformance.clones import clone
from lmzoo.conformance.fresh import FreshProcess
from lmzoo.conformance.neighbors import neighbors
from lmzoo.conformance.report import Fault
from lmzoo.conformance.sizes import LARGE, TINY, Sizes, sized_config
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig

# Options to switch on in every family that has them.
OPTIONS: Mapping[str, Any] = {"window": 5, "n_kv_heads": 2}
CALM = (0.0, 0.3)  # sizes of the noise in `calm`, relative to its usual size
# Size of the random text that a model without parameters is fitted to. It has every pair of the tiny vocabulary often.
FITTED_ROWS, FITTED_TOKENS = 16, 512


@dataclass(frozen=True)
class Sent:
    """A folder with a saved model that a fresh process was asked to load, and the logits expected from it."""

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
        self.fresh_process: FreshProcess | None = None  # started early, because `save_and_load` waits for it
        self.sent: Sent | None = None  # what the fresh process was asked to load
        self.seed = 0  # of the random shapes
        self.thorough = False  # more random shapes, and all variants in the large form
        self._made: dict[object, LanguageModel] = {}  # what `model` clones, by its arguments
        self._variants: list[Subject] | None = None  # cached, because models must be built to find their depth
        self._large: list[Subject] | None = None
        self._neighbors: list[tuple[str, ModelConfig]] | None = None

    def model(self, *, perturbed: bool = True, dropout: float = 0.0, seed: int = 0, **overrides: Any) -> LanguageModel:
        """Returns a new float32 model on the CPU in eval mode; torch's global random state stays unchanged.

        `perturbed=False` keeps the initial weights. `dropout` sets all dropout rates. `overrides` change the config. A
        model with the same arguments is constructed once and then cloned, which is much quicker.
        """
        key = (perturbed, seed, tuple(sorted(overrides.items())))
        if key not in self._made:
            self._made[key] = self._make(perturbed, seed, overrides)
        model = clone(self._made[key])
        set_dropout(model, dropout)
        return model.eval()

    def calm(self) -> list[LanguageModel]:
        """Returns float64 models near the initial weights if traits declares data_dependent_shapes; else none.

        Such a model may repeat a step until values no longer change, or up to a limit. With perturbed weights it often
        reaches the limit for every text; near the initial weights, the number of steps depends on the text.
        """
        made = []
        for scale in CALM if self.model().traits.data_dependent_shapes else ():
            model = self.model(perturbed=False).double()
            perturb(model, scale=scale)
            made.append(model)
        return made

    def dropping(self, rate: float) -> LanguageModel:
        """Returns the model in eval mode, with the dropout rates of the config and of all modules set to `rate`."""
        rates = {name: rate for name, value in configs.to_dict(self.config).items() if _is_rate(name, value)}
        if not rates or self.instance is not None:
            return self.model(dropout=rate)
        try:
            model = self._make(True, 0, rates)
        except ConfigError:
            return self.model(dropout=rate)
        set_dropout(model, rate)
        return model.eval()

    def _make(self, perturbed: bool, seed: int, overrides: Mapping[str, Any]) -> LanguageModel:
        """Constructs what `model` returns clones of."""
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

    def two_texts(self, B: int, T: int) -> tuple[Tensor, Tensor]:
        """Returns two batches of token ids (B, T) that differ at every position."""
        V = self.config.vocab_size
        idx = self.tokens(B, T)
        return idx, (idx + 1 + self.tokens(B, T, seed=1) % (V - 1)) % V

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
        """Returns subjects with other settings, to run code that the plain config does not run (a window, a bias).

        One variant inverts all booleans (or several do, if the config refuses that). Each of `OPTIONS` has a variant
        that switches it on, and one variant switches off all settings that can be None. A config can name more variants
        in `checked: ClassVar[tuple[dict, ...]]`. A variant that changes nothing is left out, and so is one that the
        settings of a caller's model exclude. Raises `ConfigError` for a variant in `checked` that the config always
        refuses.
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
        """True for a setting that stays None when it is set to None: for others, None stands for a default value."""
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
        """Returns the variant with these changes. Raises `ConfigError` if the config refuses them."""
        name = ", ".join(f"{field}={value}" for field, value in changes.items())
        variant = Subject(self.cls, {**self.settings, **changes}, f"{self.name} with {name}")
        variant.is_variant, variant.changes = True, set(changes)
        return variant

    def large(self) -> list[Subject]:
        """Returns the large form, and one with a window if the config has a window that is switched off.

        In a thorough check also returns the large form of every variant. Raises `Fault` if the config refuses the
        lengths.
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
        """Returns the large form of these settings. Raises `Fault` if the config refuses its lengths."""
        refused = ""
        for length in (LARGE.context_length, 512):  # some models need a power of two
            try:
                sizes = dataclasses.replace(LARGE, context_length=length)
                return Subject(self.cls, settings, f"{name} in its large form", sizes)
            except ConfigError as error:
                refused = str(error)
        raise Fault(
            f"the config refuses context lengths of {LARGE.context_length} and 512 tokens, one of which the checks of "
            f"the large form need: {refused}"
        )

    def neighbors(self) -> list[tuple[str, ModelConfig]]:
        """Returns configs that differ from this one in one field, with the name of the field.

        The vocabulary stays the same. So does the context length of a model that extrapolates: its logits do not depend
        on it.
        """
        if self._neighbors is None:
            same = {"context_length"} if self.model().traits.extrapolates else set()
            self._neighbors = neighbors(self.config, {"vocab_size", *same})
        return self._neighbors


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
    """True for a field of a config that is a dropout rate, judged by its name."""
    return isinstance(value, float) and any(part in name for part in ("dropout", "pdrop", "drop_rate", "drop_path"))


def set_dropout(model: nn.Module, rate: float) -> None:
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
    # A model that has the sizes of the tiny form, except for its depth, is checked itself: its layers may have been
    # changed after construction.
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
