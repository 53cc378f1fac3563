"""The operation: a new model with the weights of a trained one, in which the mixers of some layers are others.

Everything that is not replaced is copied bit by bit. A new mixer takes over the projections that fit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any, Literal, get_args

import torch

from lmzoo import configs, registry
from lmzoo.errors import ConfigError, InputError
from lmzoo.layers.layer import Layer
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.settings import shown
from lmzoo.storage.shapes import changed_config
from lmzoo.transplant.model import KEPT, TransplantFields, mixer_class, transplanted, words
from lmzoo.transplant.slots import Slot, slots_of
from lmzoo.transplant.weights import copy_kept, move

Init = Literal["qkv", "new"]

_OWN = {field.name for field in fields(TransplantFields)}


@dataclass(frozen=True)
class Replaced:
    """A layer with a new mixer: the classes, what the new one has taken over, and what of the old one is lost."""

    layer: int
    old: str
    new: str
    taken: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Transplant:
    """The result: the new model in eval mode, its layers with new mixers, and numbers of parameters.

    `kept` parameters are those of the source, `taken` those of new mixers that were taken over, `new` all others.
    """

    model: LanguageModel
    replaced: tuple[Replaced, ...]
    kept: int
    taken: int
    new: int

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the model, as `lmzoo transplant --json` prints it."""
        numbers = {"parameters": self.model.num_params(), "kept": self.kept, "taken": self.taken, "new": self.new}
        return {"model": self.model.family, "replaced": [asdict(each) for each in self.replaced], **numbers}


def transplant(
    source: LanguageModel,
    *,
    layers: Sequence[int] = (),
    to: str | None = None,
    init: Init = "qkv",
    seed: int = 1337,
    settings: Mapping[str, Any] | None = None,
) -> Transplant:
    """Replaces the mixers of `layers`, counted from 0, by those of the family `to`, in a copy of `source`.

    `settings` change the config of the source where all shapes stay, and as `FAMILY.KEY` that of the new mixers. With
    `init="qkv"` they take over the projections of queries, keys, values and output that fit, and their short
    convolutions pass their input on; other weights, and all with `init="new"`, are drawn from `seed`. Raises a
    `ConfigError` or `InputError` of one line.
    """
    if not isinstance(source, LanguageModel) or not source.family:
        raise InputError(f"source={type(source).__name__} must be a model of a registered family")
    if not isinstance(init, str) or init not in get_args(Init):
        raise ConfigError(f"init={init!r} must be one of {', '.join(get_args(Init))}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed!r} must be in [0, 2^63)")
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ConfigError(f"layers={layers!r} must be a list of numbers, such as [1, 3]")
    if to is not None and not isinstance(to, str):
        raise ConfigError(f"to={to!r} must be the name of a family")
    if bool(layers) != (to is not None):
        raise ConfigError("layers and to belong together: the layers, and the family of their new mixers")
    if not layers and not settings:
        raise ConfigError("nothing to change: give layers and the family of their new mixers, or settings")
    own, of_mixer = _divided(settings or {}, to)
    config = changed_config(source, own)
    cls, before = type(source), _replaceable(source, layers)
    if to is not None:
        cls, config = _with_mixers(source, config, [*before], to, of_mixer)
    model = registry.build_model(cls, config, generator=torch.Generator().manual_seed(seed)).to(source.device)
    after = {layer: slot.mixer for layer, slot in enumerate(slots_of(model)) if isinstance(slot, Slot)}
    kept = copy_kept(source, model, [after[layer] for layer in before])
    sizes, replaced = 0, list[Replaced]()
    for layer, old in before.items():
        new = after[layer]
        taken, lost, size = move(old, new, source.dtype, copies=init == "qkv")
        replaced.append(Replaced(layer, type(old).__name__, type(new).__name__, taken, lost))
        sizes += size
    return Transplant(model.eval(), tuple(replaced), kept, sizes, model.num_params() - kept - sizes)


def _divided(settings: Mapping[str, Any], to: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides settings into those of the source and those of the new mixers. Raises `ConfigError`."""
    own: dict[str, Any] = {}
    of_mixer: dict[str, Any] = {}
    for key, value in settings.items():
        family, dot, name = key.partition(".")
        if dot and family != to:
            raise ConfigError(f"{key}={value!r}: a setting of the new mixers must begin with {to or 'their family'}.")
        if key in _OWN or key == "vocab_size":
            raise ConfigError(f"{key}={value!r} cannot be set by a transplant")
        (of_mixer if dot else own)[name or key] = value
    return own, of_mixer


def _replaceable(model: LanguageModel, layers: Sequence[int]) -> dict[int, Layer]:
    """Returns the mixers of the layers, in their order. Raises `ConfigError` for a layer whose mixer must stay."""
    found: dict[int, Layer] = {}
    slots, family = slots_of(model), model.family
    for layer in layers:
        if not slots:
            raise ConfigError(f"{family} has no decoder frame: it has no layers whose mixers could be replaced")
        if type(layer) is not int or not 0 <= layer < len(slots):
            raise ConfigError(f"layers: {layer!r} must be in [0, {len(slots) - 1}]: {family} has {len(slots)} layers")
        if layer in found:
            raise ConfigError(f"layers: {layer} is given twice")
        slot = slots[layer]
        if isinstance(slot, ConfigError):
            raise ConfigError(f"layer {layer} of {family} {slot}")
        if getattr(slot.mixer, "carries", False):
            raise ConfigError(f"layer {layer} of {family} must keep its mixer: later layers read its keys and values")
        found[layer] = slot.mixer
    return dict(sorted(found.items()))


def _with_mixers(
    source: LanguageModel, config: ModelConfig, layers: Sequence[int], to: str, settings: Mapping[str, Any]
) -> tuple[type[LanguageModel], ModelConfig]:
    """Returns the derived class, and the config in which `layers` have the mixers of the family `to`."""
    mixer_class(to)
    cls, given = transplanted(getattr(type(source), "source", type(source))), configs.to_dict(config)
    now = words(config) if "mixers" in given else [KEPT] * len(slots_of(source))
    others = {word for layer, word in enumerate(now) if layer not in layers}
    before = [text for text in given.get("mixer_settings", ()) if text.partition(".")[0] in others]
    mine = [f"{to}.{key}={shown(value)}" for key, value in settings.items()]
    if to not in others:
        before += mine
    elif mine and {*mine} != {text for text in before if text.partition(".")[0] == to}:
        raise ConfigError(f"{mine[0]}: other layers have mixers of {to} with other settings")
    now = [to if layer in layers else word for layer, word in enumerate(now)]
    changes = {"mixers": _pattern(now), "mixer_settings": before}
    return cls, configs.build(cls.config_class, {**given, **changes})


def _pattern(now: Sequence[str]) -> str:
    """Writes the word of each layer as a pattern, such as "kept*3 gla"."""
    runs = [(word, len([*same])) for word, same in groupby(now)]
    return " ".join(word if count == 1 else f"{word}*{count}" for word, count in runs)
