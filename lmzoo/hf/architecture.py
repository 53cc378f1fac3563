"""The description of an architecture of transformers as data: the keys of its config.json and the names of its weights.

Every key of a config.json is honored, refused by name, or known to have no effect on the logits: a key that changes
them and is ignored would give a model that is wrong without a sign of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmzoo.errors import CheckpointError
from lmzoo.hf.weights import Weights
from lmzoo.suggestions import suggest

_REQUIRED = object()
Settings = Mapping[str, Any]  # of a model of lmzoo by name; those that None stands for are filled in
MAX_LAYERS = 10_000
LARGEST = 1e30  # of the numbers with which others are computed: products of some stay finite
_SHOWN = 100  # characters of a value that an error shows

Value = TypeVar("Value")


class Config(dict[str, Any]):
    """The keys of a config.json, whose values have any type."""

    def value(self, key: str, default: Value, *kinds: type) -> Value:
        """Returns the value of a key, or the default if the key is missing or null.

        Raises `CheckpointError` if it is of none of these types, by default of the type of the default, or a number
        that is infinite or too large. A whole number is also a float; a bool is not a number.
        """
        found: Any = self.get(key)
        if found is None:
            return default
        kinds = kinds or (type(default),)
        if isinstance(found, (int, float)) and not abs(found) <= LARGEST:
            raise refused(key, found, f"must be a number of at most {LARGEST:g}")
        if type(found) is int and float in kinds:
            return found  # type: ignore[return-value]
        if type(found) not in kinds:
            raise refused(key, found, f"must be {' or '.join(_KINDS[kind] for kind in kinds)}")
        return found

    def at_least(self, key: str, default: int, least: int = 1) -> int:
        """Returns a whole number that is at least this one. Raises `CheckpointError`."""
        found = self.value(key, default)
        if found < least:
            raise refused(key, self.get(key), f"must be at least {least}")
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

    def numbers(self, key: str, default: Iterable[int] = ()) -> frozenset[int]:
        """Returns the whole numbers in a list, such as those of layers. Raises `CheckpointError` for anything else."""
        found = self.value(key, [*default], list)
        for number in found:
            if type(number) is not int:
                raise refused(key, number, "must be a list of whole numbers")
        return frozenset(found)

    def words(self, key: str, known: Mapping[str, str]) -> list[str]:
        """Returns what the word of each layer stands for, from a list. Raises `CheckpointError` for an unknown word."""
        found, count = self.value(key, list[Any](), list), self.layers()
        if len(found) != count:
            raise refused(key, found, f"must have a word for each of {count} layers")
        for word in found:
            if not isinstance(word, str) or word not in known:
                raise refused(key, word, f"must be one of {', '.join(known)}")
        return [known[word] for word in found]


def layer_words(key: str, words: Sequence[str], known: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the key with a word of transformers for each layer: `Config.words` read backwards.

    Returns nothing if there is a layer for which no word is known.
    """
    theirs = {ours: word for word, ours in known.items()}
    return {key: [theirs[word] for word in words]} if {*words} <= theirs.keys() else {}


def keys_from(settings: Mapping[str, str]) -> Callable[[Settings], dict[str, Any]]:
    """Returns the function from the settings of a model to keys of other names; `settings` has the one of each key."""
    return lambda ours: {key: ours[setting] for key, setting in settings.items()}


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

    def inverse(self, key: str, ours: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns the key and its value for a model with these settings; nothing if the default of the key is right."""
        return {}


@dataclass(frozen=True)
class To(Key):
    """A key that is a setting of lmzoo with another name. Without a default, the key must be given.

    The default is the one of transformers for a config.json without the key. `values` maps the values of the key, if
    they differ from those of the setting. With `null=False`, null is refused, as
    transformers cannot compute with it.
    """

    setting: str
    default: Any = _REQUIRED
    values: Mapping[Any, Any] | None = None
    null: bool = True

    def settings(self, key: str, config: Config) -> Mapping[str, Any]:
        value = config.get(key, self.default)
        if value is _REQUIRED:
            raise CheckpointError(f"{key} must be given")
        if value is None and not self.null:
            raise refused(key, None, "must not be null")
        if self.values is None:
            return {self.setting: value}
        if isinstance(value, (list, dict)) or value not in self.values:
            raise refused(key, value, f"must be one of {', '.join(map(repr, self.values))}")
        return {self.setting: self.values[value]}

    def inverse(self, key: str, ours: Settings) -> Mapping[str, Any]:
        value = ours[self.setting]
        if self.values is not None:
            known = [each for each, setting in self.values.items() if setting == value]
            if not known:
                return {}
            value = self.default if self.default in known else known[0]
        if type(self.default) is int and isinstance(value, float):  # transformers refuses other numbers than whole ones
            return {key: int(value)} if value.is_integer() else {}
        return {} if value is None and (self.default is None or not self.null) else {key: value}


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

    def inverse(self, key: str, ours: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """Writes the value for readers that have no defaults, unless it says that a part is absent."""
        return {} if self.value is None or isinstance(self.value, list) else {key: self.value}


@dataclass(frozen=True)
class Unread(Only):
    """A key in files of the hub that transformers does not read. Its value must describe what transformers computes."""

    def inverse(self, key: str, ours: Settings) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns nothing: nobody needs the key."""
        return {}


@dataclass(frozen=True)
class Same(Key):
    """A key that must be equal to another key, whose default is given, or be missing."""

    other: str
    default: Any

    def settings(self, key: str, config: Config) -> Mapping[str, Any]:
        value = config.value(self.other, self.default)
        if config.value(key, value) != value:
            raise refused(key, config[key], f"must be {self.other}={value}")
        return {}


@dataclass(frozen=True)
class Unused(Key):
    """A key of this architecture that has no effect on the logits."""

    def settings(self, key: str, config: Config) -> Mapping[str, Any]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class Together:
    """Keys that give settings together; `settings` raises `CheckpointError` for values that lmzoo cannot honor.

    `inverse` returns the keys for the settings of a model. Without it, an architecture cannot be written.
    """

    keys: tuple[str, ...]
    settings: Callable[[Config], Mapping[str, Any]]
    inverse: Callable[[Settings], Mapping[str, Any]] | None = None

    def inverse_of(self, ours: Settings) -> dict[str, Any]:
        """Returns the keys for the settings of a model; nothing without an inverse."""
        return {} if self.inverse is None else {**self.inverse(ours)}


def checked(keys: tuple[str, ...], check: Callable[[Config], None]) -> Together:
    """Returns keys that give no settings: `check` raises `CheckpointError` for values that lmzoo cannot honor."""

    def settings(config: Config) -> Mapping[str, Any]:
        check(config)
        return {}

    return Together(keys, settings, lambda _: {})


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
    prefixes: Mapping[str, str] = field(default_factory=dict[str, str])  # beginnings of names, and those in `weights`
    prefix: str = "model."  # of the names of all tensors but the head; a base model was saved without it
    old_names: Mapping[str, str] = field(default_factory=dict[str, str])  # of tensors, and their names in `weights`
    buffers: tuple[str, ...] = ()  # patterns of tensors that are not read: computed by lmzoo, or of other parts
    written: Mapping[str, Any] = field(default_factory=dict[str, Any])  # keys that are written and have no effect
    # Keys that are written for training and not read, and the settings whose values they get.
    training: Mapping[str, str] = field(default_factory=dict[str, str])

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

    @property
    def can_be_written(self) -> bool:
        """True if each part of the description has an inverse."""
        return all(together.inverse is not None for together in self.together)

    def saved_name(self, name: str) -> str:
        """Returns the name by which most files have a tensor that is called `name` in `weights`."""
        for old, new in self.old_names.items():
            if name == new:
                return old
        for other, begin in self.prefixes.items():
            if name.startswith(begin):
                return f"{other}{name.removeprefix(begin)}"
        return name

    def config(self, ours: Settings) -> Config:
        """Returns the config.json for a model with these settings: `settings` read backwards.

        It may describe another model, if these keys cannot express the settings: compare `settings` of it.
        """
        keys: dict[str, Any] = {"model_type": self.model_type, "architectures": [self.classes[0]]}
        for key, meaning in self.keys.items():
            keys |= meaning.inverse(key, ours)
        for together in self.together:
            keys |= together.inverse_of(ours)
        keys |= {key: ours[setting] for key, setting in self.training.items()}
        # A text of lmzoo has no special tokens. Without these keys, the defaults of transformers would be ids.
        return Config({**keys, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **self.written})
