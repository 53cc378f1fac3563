"""The description of an architecture of transformers as data: the keys of its config.json and the names of its weights.

Every key of a config.json is honored, refused by name, or known to have no effect on the logits: a key that changes
them and is ignored would give a model that is wrong without a sign of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmzoo.errors import CheckpointError
from lmzoo.hf.weights import Weights
from lmzoo.suggestions import suggest

_REQUIRED = object()
MAX_LAYERS = 10_000
_SHOWN = 100  # characters of a value that an error shows

Value = TypeVar("Value")


class Config(dict[str, Any]):
    """The keys of a config.json, whose values have any type."""

    def value(self, key: str, default: Value, *kinds: type) -> Value:
        """Returns the value of a key, or the default if the key is missing or null.

        Raises `CheckpointError` if it is of none of these types, by default of the type of the default. A whole number
        is also a float; a bool is not a number.
        """
        found: Any = self.get(key)
        if found is None:
            return default
        kinds = kinds or (type(default),)
        if type(found) is int and float in kinds:
            return found  # type: ignore[return-value]
        if type(found) not in kinds:
            raise refused(key, found, f"must be {' or '.join(_KINDS[kind] for kind in kinds)}")
        return found

    def table(self, key: str) -> Config:
        """Returns the value of a key that is a JSON object, empty if the key is missing or null."""
        return Config(self.value(key, dict[str, Any](), dict))

    def layers(self, key: str = "num_hidden_layers") -> int:
        """Returns the number of layers, bounded, because it is the length of lists."""
        count = self.value(key, 0)
        if not 0 < count <= MAX_LAYERS:
            raise refused(key, self.get(key), f"must be a number from 1 to {MAX_LAYERS}")
        return count

    def words(self, key: str, known: Mapping[str, str]) -> list[str]:
        """Returns what the word of each layer stands for, from a list. Raises `CheckpointError` for an unknown word."""
        found, count = self.value(key, list[Any](), list), self.layers()
        if len(found) != count:
            raise refused(key, found, f"must have a word for each of {count} layers")
        for word in found:
            if not isinstance(word, str) or word not in known:
                raise refused(key, word, f"must be one of {', '.join(known)}")
        return [known[word] for word in found]


_KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "an object",
    list: "a list",
}


def refused(key: str, value: object, rule: str) -> CheckpointError:
    """Returns the error for a key whose value breaks a rule."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # more digits than Python writes, or nested too deeply
        shown = f"a very large {type(value).__name__}"
    return CheckpointError(f"{key}={shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'} {rule}")


class Key(ABC):
    """The meaning of one key."""

    @abstractmethod
    def settings(self, key: str, config: Config) -> Mapping[str, Any]:
        """Returns the settings of lmzoo that the value of the key gives. Raises `CheckpointError`."""


@dataclass(frozen=True)
class To(Key):
    """A key that is a setting of lmzoo with another name. Without a default, the key must be given.

    The default is the one of transformers for a config.json without the key. `values` maps the values of the key, if
    they differ from those of the setting.
    """

    setting: str
    default: Any = _REQUIRED
    values: Mapping[Any, Any] | None = None

    def settings(self, key: str, config: Config) -> Mapping[str, Any]:
        value = config.get(key, self.default)
        if value is _REQUIRED:
            raise CheckpointError(f"{key} must be given")
        if self.values is None:
            return {self.setting: value}
        if isinstance(value, (list, dict)) or value not in self.values:
            raise refused(key, value, f"must be one of {', '.join(map(repr, self.values))}")
        return {self.setting: self.values[value]}


@dataclass(frozen=True)
class Only(Key):
    """A key that must have this value, or one of those in `others`, or be missing."""

    value: Any
    others: tuple[Any, ...] = ()

    def settings(self, key: str, config: Config) -> Mapping[str, Any]:
        value = config.get(key, self.value)
        if value not in (self.value, *self.others):
            known = " or ".join(map(repr, (self.value, *self.others)))
            raise refused(key, value, f"must be {known}: lmzoo has no other form of this part")
        return {}


@dataclass(frozen=True)
class Unused(Key):
    """A key of this architecture that has no effect on the logits."""

    def settings(self, key: str, config: Config) -> Mapping[str, Any]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class Together:
    """Keys that give settings together; `settings` raises `CheckpointError` for values that lmzoo cannot honor."""

    keys: tuple[str, ...]
    settings: Callable[[Config], Mapping[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """A model type of transformers, as a family of lmzoo with some of its settings."""

    model_type: str  # as in config.json
    classes: tuple[str, ...]  # the causal language models of this type, in `architectures` of config.json
    family: str  # of lmzoo
    weights: Weights | Callable[[Config], Weights]  # a function, if names or layouts depend on other than our settings
    keys: Mapping[str, Key]
    together: tuple[Together, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])  # settings that every model of this type has
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])  # other names of keys, as in `attribute_map`
    prefix: str = "model."  # of the names of all tensors but the head; a base model was saved without it
    old_prefix: str = ""  # the prefix in files of other versions
    old_names: Mapping[str, str] = field(default_factory=dict[str, str])  # of tensors, and their names in `weights`
    buffers: tuple[str, ...] = ()  # patterns of tensors in old files that lmzoo computes itself

    def _without_aliases(self, config: Config) -> Config:
        """Returns the config with the names of `keys` alone."""
        plain = Config({key: value for key, value in config.items() if key not in self.aliases})
        for alias, key in self.aliases.items():
            if alias in config and plain.setdefault(key, config[alias]) != config[alias]:
                raise refused(alias, config[alias], f"must be equal to {key}={plain[key]}")
        return plain

    def weights_for(self, config: Config) -> Weights:
        """Returns the names of the weights for a config.json, whose keys were checked."""
        return self.weights(config) if callable(self.weights) else self.weights

    def settings(self, config: Config, without_effect: frozenset[str]) -> dict[str, Any]:
        """Returns the settings of the lmzoo model for a config.json.

        `without_effect` are keys of any model type that do not change the logits. Raises `CheckpointError` naming key,
        value and rule for a key that cannot be honored or is unknown.
        """
        config = self._without_aliases(config)
        known = {*self.keys, *(key for together in self.together for key in together.keys)}
        settings = dict(self.fixed)
        for key, meaning in self.keys.items():
            settings |= meaning.settings(key, config)
        for together in self.together:
            settings |= together.settings(config)
        for key in config:
            if key not in known and key not in without_effect:
                raise refused(
                    key, config[key], f"is not a key of {self.model_type} that lmzoo knows{suggest(key, known)}"
                )
        return settings
