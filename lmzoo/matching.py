"""Parameter matching: finds the config of a model with, for example, one million parameters.

A config declares in `scaled` which of its fields grow with the model's width, and the multiple that each is rounded to.
All of them are scaled by one factor; then the last one is tuned alone. Depth, heads, state sizes and windows stay.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Any

from lmzoo import configs, registry
from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel, ModelConfig

TOLERANCE = 0.02  # accepted relative error; beyond it, a match with changed proportions is preferred
RATIO = 1.15  # factor by which the last field may change its proportion to the first within the tolerance
MOST_RATIO = 2.0  # maximum of this factor
WIDEST = 1 << 16  # maximum of the field that is bisected, and of the field that is tuned


# Measures that can be matched, with their units.
MEASURES: Mapping[str, str] = {
    "params": "parameters",
    "non_embedding": "parameters without embeddings",
    "active": "active parameters",
    "flops": "FLOPs per token",  # of a forward pass over context_length tokens
    "state": "bytes of state",  # of one row after context_length tokens
}
ALIASES: Mapping[str, str] = {"params_non_embedding": "non_embedding"}  # the name of the figure in results
SUFFIXES: Mapping[str, float] = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Match:
    """A config, the measured value of its model, and the target.

    `ratio` is the change of the proportion of the last scaled field to the first: 1.1 if `d_ff / d_model` is 10 % above
    the original proportion.
    """

    config: ModelConfig
    value: float
    target: float
    ratio: float

    @property
    def error(self) -> float:
        """Returns the relative error; 0.01 means 1 % above the target."""
        return self.value / self.target - 1


def parse_match(match: str) -> tuple[str, float]:
    """Parses `"params=1M"` to `("params", 1e6)`: one of `MEASURES`, and a number, optionally with k, M, B (or G), T.

    Raises `ConfigError`.
    """
    measure, equals, number = match.partition("=") if isinstance(match, str) else ("", "", "")
    if not equals:
        raise ConfigError(f"match={match!r} must have the form MEASURE=NUMBER, as in 'params=1M'")
    measure = ALIASES.get(measure, measure)
    if measure not in MEASURES:
        raise ConfigError(f"match={match!r}: {measure!r} cannot be matched{configs.suggest(measure, MEASURES)}")
    return measure, parse_number(f"match={match!r}", number)


def parse_number(where: str, number: str) -> float:
    """Parses "1M", "350k" or "2e6". Raises `ConfigError`, whose message begins with `where`."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?(?:e[+-]?\d{1,3})?)([kmbgt]?)", number.lower())
    value = float(found[1]) * SUFFIXES[found[2]] if found else 0.0
    if not 0 < value < inf:
        raise ConfigError(f"{where}: {number!r} must be a number above 0, as in 1M, 350k, 1.5B or 2e6")
    return value


def measured(model: LanguageModel, measure: str) -> float:
    """Returns the value of one of `MEASURES` for a model."""
    T = model.config.context_length
    if measure == "flops":
        return model.flops_per_token(T)
    if measure == "state":
        return model.state_bytes(T)
    return model.num_params(embedding=measure != "non_embedding", active=measure == "active")


def matched_config(name: str, match: str, **config: Any) -> Match:
    """Finds the config of the model `name` whose measured value is nearest to the target in `match`.

    The preset's settings, overridden by `config`, give the depth and the proportions; scaled fields in `config` keep
    their values. Raises `ConfigError` for a target that cannot be reached, and the errors of `create_model`.
    """
    measure, target = parse_match(match)
    family, preset = registry.split_name(name)
    cls = registry.model_class(family.name)
    settings = {**(preset.model if preset else {}), **config}
    scaled = cls.config_class.scaled
    free = {field: multiple for field, multiple in scaled.items() if config.get(field) in (None, configs.NONE)}
    if not free:
        configs.build(cls.config_class, settings)  # raises other errors first
        why = f"{', '.join(scaled)} given" if scaled else "no field of its config grows with a width"
        raise ConfigError(f"match={match!r} leaves nothing to change in {name}: {why}")
    base = _base_config(cls.config_class, settings, *next(iter(free.items())))
    settings = {key: None if value == configs.NONE != getattr(base, key) else value for key, value in settings.items()}
    search = _Search(cls, settings, base, free, measure)
    low, high = search.ends(target)
    least, most = search.value(low), search.value(high)
    has, unit = f"match={match!r}: {name} has", MEASURES[measure]
    if least == most != target:
        raise ConfigError(f"{has} {least:,.0f} {unit}, whatever {' and '.join(free)}")
    if not least <= target <= most:
        end, value, bound = (low, least, "at least") if target < least else (high, most, "at most")
        sizes = ", ".join(f"{field}={getattr(end, field)}" for field in free)
        raise ConfigError(f"{has} {bound} {value:,.0f} {unit} (at {sizes}); change n_layers or other settings")
    return min(search.matches(low, high, target), key=_badness)


def _base_config(cls: type[ModelConfig], settings: Mapping[str, Any], field: str, multiple: int) -> ModelConfig:
    """Returns the config of `settings`, which gives the proportions.

    If it breaks a rule, `field` is set to the nearest multiple that does not: `n_heads=6` need not divide a `d_model`
    that will change. Raises the first error if no multiple up to four times the width is valid.
    """
    try:
        return configs.build(cls, settings)
    except ConfigError:
        width = settings.get(field, next((f.default for f in dataclasses.fields(cls) if f.name == field), None))
        widths = range(multiple, 4 * width, multiple) if isinstance(width, int) else ()
        for near in sorted(widths, key=lambda other: abs(other - width)):
            with suppress(ConfigError):
                return configs.build(cls, {**settings, field: near})
        raise


def _badness(match: Match) -> tuple[bool, bool, float]:
    """Returns a sort key: first within the tolerance, then near the original proportion, then the smallest error."""
    return abs(match.error) > TOLERANCE, abs(log(match.ratio)) > log(RATIO), abs(match.error)


class _Search:
    """Configs of one model by width. A step is the value of the first free field, divided by its multiple."""

    def __init__(
        self,
        cls: type[LanguageModel],
        settings: Mapping[str, Any],
        base: ModelConfig,
        free: Mapping[str, int],
        measure: str,
    ) -> None:
        self.cls, self.settings, self.base, self.free, self.measure = cls, settings, base, free, measure
        self.first, self.last = next(iter(free)), [*free][-1]
        self.values: dict[tuple[int, ...], float] = {}  # by the free fields

    def value(self, config: ModelConfig) -> float:
        """Measures a model of the config, built on the meta device, which needs no memory."""
        sizes = tuple(self.sizes(config).values())
        if sizes not in self.values:
            model = registry.build_model(self.cls, config, device="meta")
            self.values[sizes] = measured(model, self.measure)
        return self.values[sizes]

    def ends(self, target: float) -> tuple[ModelConfig, ModelConfig]:
        """Returns the narrowest config, and one whose value is at least the target (or else the widest)."""
        step, most = self.step(self.base), WIDEST // self.free[self.first]
        low, high = self.nearest(1, 1, most) or self.base, self.nearest(step, 1, most) or self.base
        while self.value(high) < target and step < most:
            step = min(2 * step, most)
            high = self.nearest(step, 1, most) or high
        return low, high

    def matches(self, low: ModelConfig, high: ModelConfig, target: float) -> Iterator[Match]:
        """Yields configs around the width at which the value reaches the target, with and without a tuned last field.

        The value of `low` must be at most the target, and the value of `high` at least the target.
        """
        while middle := self.nearest(sqrt(self.step(low) * self.step(high)), self.step(low) + 1, self.step(high) - 1):
            low, high = (middle, high) if self.value(middle) <= target else (low, middle)
        if self.first == self.last:
            wanted: list[float] = []  # nothing to tune: the two neighbors of the target are the nearest
        else:
            wanted = [self.step(low) * 2 ** (sixteenth / 16) for sixteenth in range(-4, 5)]  # factors 0.84 to 1.19
        around = [low, high, *(self.nearest(step, 1, round(2 * step)) for step in wanted)]
        for config in {self.step(config): config for config in around if config is not None}.values():
            yield Match(config, self.value(config), target, self.ratio(config))
            tuned = self.tuned(config, target) if wanted else None
            if tuned is not None and 1 / MOST_RATIO < self.ratio(tuned) < MOST_RATIO:
                yield Match(tuned, self.value(tuned), target, self.ratio(tuned))

    def tuned(self, config: ModelConfig, target: float) -> ModelConfig | None:
        """Returns the config with its last field tuned to the target, assuming that the value is linear in it."""
        size, multiple = getattr(config, self.last), self.free[self.last]
        more = self.build({**self.sizes(config), self.last: size + multiple})
        slope = 0.0 if more is None else self.value(more) - self.value(config)
        wanted = size + multiple * round((target - self.value(config)) / slope) if slope > 0 else 0
        return self.build({**self.sizes(config), self.last: wanted}) if multiple <= wanted <= WIDEST else None

    def ratio(self, config: ModelConfig) -> float:
        """Returns the change of the proportion of the last scaled field to the first, fixed fields included."""
        first, last = next(iter(self.base.scaled)), [*self.base.scaled][-1]
        proportion, before = (getattr(c, last) / getattr(c, first) for c in (config, self.base))
        return proportion / before

    def nearest(self, wanted: float, least: int, most: int) -> ModelConfig | None:
        """Returns the valid config at the step nearest to `wanted`, from `least` to `most`; None if there is none."""
        middle = min(max(round(wanted), least), most)
        for distance in range(most - least + 1):
            for step in (middle - distance, middle + distance):
                if least <= step <= most and (config := self.at(step)):
                    return config
        return None

    def at(self, step: int) -> ModelConfig | None:
        """Returns the config with all free fields scaled by one factor; None if that breaks a rule of the config."""
        factor = step * self.free[self.first] / getattr(self.base, self.first)
        grown = {field: getattr(self.base, field) * factor / multiple for field, multiple in self.free.items()}
        return self.build({field: max(1, round(size)) * self.free[field] for field, size in grown.items()})

    def build(self, sizes: Mapping[str, int]) -> ModelConfig | None:
        """Returns the config with these sizes and the given settings; None if it breaks a rule.

        Fields that were not given take the defaults that follow from the new sizes.
        """
        try:
            return self.cls.config_class(**{**self.settings, **sizes})
        except ConfigError:
            return None

    def step(self, config: ModelConfig) -> int:
        """Returns the step of a config."""
        return getattr(config, self.first) // self.free[self.first]

    def sizes(self, config: ModelConfig) -> dict[str, int]:
        """Returns the free fields of a config."""
        return {field: getattr(config, field) for field in self.free}
