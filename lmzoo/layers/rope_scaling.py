"""Rotary frequencies for texts longer than those of the training: linear, NTK-aware, dynamic, YaRN, LongRoPE, Llama 3.

A model has learned angles up to (context length) x (frequency). Each rule slows the frequencies so that longer texts
stay within them; they differ in how much they slow the fast pairs of features, which tell near positions apart.

The frequencies of dynamic and LongRoPE depend on the length of the text: a forward pass on T tokens uses those of T for
all positions. So past a length a token changes what the model computes for earlier ones, and a state that was made with
other frequencies cannot be continued: decoding then reads all tokens again (`Decoder.same_until`).
Legend: K pairs of features of a head, from fast to slow.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lmzoo.configs import require, require_between
from lmzoo.errors import ConfigError
from lmzoo.ops.rope import rotated_features

NONE = "none"


@dataclass(frozen=True)
class RopeScaling:
    """The base class: `factor` is the length of the texts to read over that of the training."""

    factor: float

    def at(self, length: int) -> RopeScaling:
        """Returns the rule for a text of `length` tokens; by default the same for all lengths."""
        return self

    def same_until(self, length: int) -> int | None:
        """Returns the length up to which a text of `length` tokens can grow with the same rule; None: any length."""
        return None

    def require_pairs(self, pairs: int) -> None:
        """Raises `ConfigError` if the rule does not fit heads with this number of rotated pairs."""

    def scaled(self, frequency_K: Tensor, theta: float) -> Tensor:
        """Returns the frequencies to use in place of `frequency_K`, theta^(-k/K)."""
        raise NotImplementedError

    @property
    def magnitude(self) -> float:
        """Returns the factor of cosines and sines, so of rotated queries and keys."""
        return 1.0


@dataclass(frozen=True)
class Linear(RopeScaling):
    """All frequencies divided by `factor`: positions are interpolated (Chen et al. 2023, arXiv 2306.15595)."""

    def scaled(self, frequency_K: Tensor, theta: float) -> Tensor:
        return frequency_K / self.factor


@dataclass(frozen=True)
class NTK(RopeScaling):
    """A larger theta: the slowest pair is slowed by `factor`, the fastest not at all ("NTK-aware", bloc97 2023)."""

    def scaled(self, frequency_K: Tensor, theta: float) -> Tensor:
        pairs = len(frequency_K)
        k_K = torch.arange(pairs, device=frequency_K.device, dtype=frequency_K.dtype)
        return frequency_K * self.factor ** -(k_K / max(1, pairs - 1))


@dataclass(frozen=True)
class Yarn(RopeScaling):
    """YaRN (Peng et al. 2023, arXiv 2309.00071): slowed by the number of turns that a pair makes in `original` tokens.

    Pairs of more than `fast` turns keep their frequency, pairs of fewer than `slow` are divided by `factor`, and in
    between it changes linearly with the index of the pair. Larger cosines and sines sharpen the attention.
    """

    original: int  # context length of the training
    fast: float = 32.0
    slow: float = 1.0
    attention: float | None = None  # factor of cosines and sines; None: 0.1 ln(factor) + 1
    whole: int = 1  # the pairs of `fast` and `slow` turns are rounded to whole pairs; 0: they are not (gpt-oss)

    def scaled(self, frequency_K: Tensor, theta: float) -> Tensor:
        pairs = len(frequency_K)
        first, last = (
            pairs * math.log(self.original / (turns * 2 * math.pi)) / math.log(theta)  # the pair of that many turns
            for turns in (self.fast, self.slow)
        )
        if self.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * pairs - 1)
        k_K = torch.arange(pairs, device=frequency_K.device, dtype=frequency_K.dtype)
        slowed_K = ((k_K - first) / (last - first if last != first else 0.001)).clamp(0, 1)
        return frequency_K * (1 - slowed_K) + frequency_K / self.factor * slowed_K

    @property
    def magnitude(self) -> float:
        return 0.1 * math.log(self.factor) + 1 if self.attention is None else self.attention


@dataclass(frozen=True)
class Llama3(RopeScaling):
    """The rule of Llama 3.1 (arXiv 2407.21783): slowed by the number of turns in `original` tokens.

    Pairs of more than `high` turns keep their frequency, pairs of fewer than `low` are divided by `factor`, and in
    between it changes linearly with the number of turns.
    """

    original: int  # context length of the training
    low: float = 1.0
    high: float = 4.0

    def scaled(self, frequency_K: Tensor, theta: float) -> Tensor:
        turns_K = self.original * frequency_K / (2 * math.pi)
        kept_K = ((turns_K - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequency_K * kept_K + frequency_K / self.factor * (1 - kept_K)


@dataclass(frozen=True)
class Dynamic(RopeScaling):
    """NTK-aware with a factor that grows with the text, from 1 at `original` tokens ("dynamic NTK", emozilla 2023)."""

    original: int  # context length of the training

    def same_until(self, length: int) -> int:
        return max(length, self.original)

    def at(self, length: int) -> NTK:
        return NTK(self.factor * max(1.0, length / self.original) - (self.factor - 1))


@dataclass(frozen=True)
class Divided(RopeScaling):
    """The frequency of each pair divided by a number of its own."""

    divisors: tuple[float, ...]
    attention: float  # factor of cosines and sines

    def scaled(self, frequency_K: Tensor, theta: float) -> Tensor:
        return frequency_K / torch.tensor(self.divisors, device=frequency_K.device, dtype=frequency_K.dtype)

    @property
    def magnitude(self) -> float:
        return self.attention


@dataclass(frozen=True)
class LongRope(RopeScaling):
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753): a divisor for each pair, found by a search.

    Texts of up to `original` tokens have the divisors `short`, longer ones `long`. Larger cosines and sines sharpen the
    attention, at any length.
    """

    original: int  # context length of the training
    short: tuple[float, ...]
    long: tuple[float, ...]
    attention: float | None = None  # factor of cosines and sines; None: sqrt(1 + ln factor / ln original)

    def same_until(self, length: int) -> int | None:
        return self.original if length <= self.original else None

    def at(self, length: int) -> Divided:
        return Divided(self.factor, self.long if length > self.original else self.short, self.magnitude)

    def require_pairs(self, pairs: int) -> None:
        for name, divisors in (("short", self.short), ("long", self.long)):
            if len(divisors) != pairs:
                counts = f"{name} has {len(divisors)} numbers, but heads have {pairs} rotated pairs"
                raise ConfigError(f"rope_scaling: {counts}")

    @property
    def magnitude(self) -> float:
        if self.attention is not None:
            return self.attention
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original)) if self.factor > 1 else 1.0


KINDS: dict[str, type[RopeScaling]] = {
    "linear": Linear,
    "ntk": NTK,
    "dynamic": Dynamic,
    "yarn": Yarn,
    "longrope": LongRope,
    "llama3": Llama3,
}
_SHOWN = 100  # characters of a text that an error shows


def parse_rope_scaling(text: str) -> RopeScaling | None:
    """Returns the rule that a text such as `"yarn factor=4 original=2048"` describes; None for "none".

    Several numbers stand with commas: `"longrope factor=4 original=2048 short=1,1.5 long=1,4"`. Raises `ConfigError`
    naming the part of the text that breaks a rule.
    """
    kind, *parts = text.split() if isinstance(text, str) and text.strip() else ("",)
    if kind == NONE and not parts:
        return None
    where = f"rope_scaling={text!r}"
    if len(where) > _SHOWN:
        where = f"{where[:_SHOWN]}...'"
    if kind not in KINDS:
        raise ConfigError(f"{where} must be {NONE}, or begin with one of {', '.join(KINDS)}")
    known = {field.name: field for field in fields(KINDS[kind])}
    values: dict[str, Any] = {}
    for part in parts:
        name, _, number = part.partition("=")
        if name not in known or name in values:
            raise ConfigError(f"{where}: {part!r} must be one of {', '.join(f'{each}=NUMBER' for each in known)}")
        if known[name].type == "tuple[float, ...]":
            values[name] = tuple(_number(where, name, one, whole=False) for one in number.split(","))
        else:
            values[name] = _number(where, name, number, whole=known[name].type == "int")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    if missing:
        raise ConfigError(f"{where} must also have {missing[0]}=NUMBER")
    scaling = KINDS[kind](**values)
    if isinstance(scaling, Llama3) and scaling.low >= scaling.high:
        raise ConfigError(f"{where}: low={scaling.low} must be below high={scaling.high}")
    if isinstance(scaling, Yarn) and not 0 < scaling.slow < scaling.fast:
        raise ConfigError(f"{where}: slow={scaling.slow} must be above 0 and below fast={scaling.fast}")
    if isinstance(scaling, LongRope) and scaling.original == 1 and scaling.attention is None:
        raise ConfigError(f"{where}: original=1 must be at least 2, or have attention=NUMBER")
    if isinstance(scaling, LongRope) and not all((*scaling.short, *scaling.long)):
        raise ConfigError(f"{where}: short and long must have numbers above 0")
    return scaling


def require_rope_scaling(config: Any, rotated: float) -> None:
    """Requires that the setting `rope_scaling` is a rule that fits heads of which this many features are rotated.

    Raises `ConfigError`.
    """
    scaling = parse_rope_scaling(config.rope_scaling)
    if scaling is not None:
        scaling.require_pairs(int(rotated + 1e-6) // 2)
    if isinstance(scaling, Yarn) and config.rope_theta == 1:
        raise ConfigError(f"rope_theta={config.rope_theta} must not be 1 with rope_scaling={config.rope_scaling!r}")


def require_rotary_fraction(config: Any, *, rotated: bool = True) -> int:
    """Requires that the setting `rotary_fraction` is from 0 to 1, and that it rotates 2 features of a head at least.

    Zero rotates none. With `rotated=False` no layer rotates, and a head may be too narrow. Returns the number of
    rotated features.
    """
    require_between(config, "rotary_fraction", 0, 1)
    head_dim = getattr(config, "head_dim", None) or config.d_model // config.n_heads
    features = rotated_features(head_dim, config.rotary_fraction)
    message = f"rotary_fraction={config.rotary_fraction} of head_dim={head_dim} must be at least 2 features"
    require(features > 0 or config.rotary_fraction == 0 or not rotated, message)
    return features


def _number(where: str, name: str, text: str, *, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    least = 1 if name in ("factor", "original") else 0
    if not least <= value < 1 << 40:
        rule = f"{'a whole number' if whole else 'a number'} from {least} to 2^40"
        raise ConfigError(f"{where}: {name}={text} must be {rule}")
    return value
