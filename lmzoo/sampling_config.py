"""Sampling settings: their defaults, rules and help texts. Imports no torch, so that `lmzoo sample --help` is quick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypedDict

from lmzoo.configs import require, suggest
from lmzoo.errors import InputError

TEMPERATURE = 0.8  # default of `lmzoo sample` and `lmzoo.sample`; that of `generate` is 1


def _setting(default: Any, text: str) -> Any:
    """A field with a default value and the help text of its option in `lmzoo sample`."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class SamplingConfig:
    """Sampling settings, applied in this order: logit_bias, penalties, temperature, top_k, top_p, min_p, typical_p.

    The penalties count all tokens so far, including the prompt. Of tied tokens, the lowest ids come first. Raises
    `ConfigError` naming the setting.
    """

    temperature: float = _setting(1.0, "Divides the logits; 0 always takes the most likely token.")
    top_k: int | None = _setting(None, "Sample from the k most likely tokens.")
    top_p: float | None = _setting(None, "Sample from the smallest set of most likely tokens with this probability.")
    min_p: float | None = _setting(None, "Sample from tokens with at least this share of the highest probability.")
    repetition_penalty: float = _setting(1.0, "Above 1: tokens that occurred before become less likely.")
    frequency_penalty: float = _setting(0.0, "Subtracted from a token's logit for each time it occurred.")
    presence_penalty: float = _setting(0.0, "Subtracted from a token's logit once, if it occurred.")
    typical_p: float | None = _setting(None, "Sample from the most typical tokens with this probability.")
    logit_bias: Mapping[int, float] | None = None  # added to the logits by token id; -inf bans a token

    def __post_init__(self) -> None:
        for name in ("temperature", "repetition_penalty", "frequency_penalty", "presence_penalty"):
            _require_number(name, getattr(self, name))
        require(self.temperature >= 0, f"temperature={self.temperature} must be 0 (greedy) or above")
        require(self.repetition_penalty > 0, f"repetition_penalty={self.repetition_penalty} must be above 0")
        if self.top_k is not None:
            whole = isinstance(self.top_k, Integral) and not isinstance(self.top_k, bool)
            require(
                whole and 1 <= self.top_k < 1 << 63, f"top_k={self.top_k!r} must be a positive integer, or None for all"
            )
        for name in ("top_p", "min_p", "typical_p"):
            value = getattr(self, name)
            if value is not None:
                _require_number(name, value)
                require(0 < value <= 1, f"{name}={value} must be in (0, 1], or None")
        mapping = self.logit_bias is None or isinstance(self.logit_bias, Mapping)
        require(mapping, f"logit_bias={self.logit_bias!r} must be a mapping of token ids to numbers, or None")
        for token, bias in (self.logit_bias or {}).items():
            whole = isinstance(token, Integral) and not isinstance(token, bool)
            require(whole and token >= 0, f"logit_bias has the key {token!r}: it must be a token id")
            real = isinstance(bias, Real) and bias < math.inf  # False for a NaN too
            require(real, f"logit_bias[{token}]={bias!r} must be a number, or -inf to ban the token")

    @property
    def adjusts(self) -> bool:
        """True if a bias or a penalty changes the logits."""
        penalized = self.repetition_penalty != 1.0 or self.frequency_penalty or self.presence_penalty
        return bool(self.logit_bias or penalized)


def named_settings(settings: Mapping[str, Any]) -> SamplingConfig:
    """Make a config from settings by name. Raises `InputError` for an unknown name, `ConfigError` for a bad value."""
    known = [setting.name for setting in fields(SamplingConfig)]
    for name in settings:
        if name not in known:
            raise InputError(f"{name}={settings[name]!r} is not an option of generation{suggest(name, known)}")
    return SamplingConfig(**settings)


def _require_number(name: str, value: object) -> None:
    try:
        real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        real = real and not (isinstance(value, Integral) and abs(int(value)) >= 1 << 63)  # torch takes no larger ones
    except OverflowError:  # an integer that is larger than any float
        real = False
    require(real, f"{name}={value!r} must be a finite number")


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingConfig` as keyword arguments, for type checkers; a test holds them equal."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    typical_p: float | None
    logit_bias: Mapping[int, float] | None
