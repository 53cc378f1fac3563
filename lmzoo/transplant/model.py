"""Families with transplanted mixers: `llama-transplant` is llama, except that a text in its config replaces mixers.

Such a family is derived from its source, in any process that meets its name: it has the settings of the source, and two
more. So a model with transplanted mixers is built from its config alone, like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, cast

from lmzoo import configs, registry
from lmzoo.configs import require
from lmzoo.decoder import Decoder
from lmzoo.errors import ConfigError, LmzooError
from lmzoo.layers import stack
from lmzoo.layers.cross_layer_attention import CrossLayerAttention
from lmzoo.layers.layer import Layer
from lmzoo.layers.pattern import pattern
from lmzoo.layers.shared_attention import SharedAttention
from lmzoo.layers.shared_block import SharedBlock
from lmzoo.model import LanguageModel, ModelConfig, StateGrowth, Traits
from lmzoo.transplant.slots import slot_of, slots_of

KEPT = "kept"  # the word of a layer that keeps its own mixer
# Settings of the source that mixers of another family follow.
FOLLOWED = ("n_layers", "context_length", "norm_eps", "n_heads", "n_kv_heads", "head_dim", "rope_theta")


@dataclass(frozen=True, kw_only=True)
class TransplantFields:
    """The settings of a derived family beside those of its source, which a subclass adds."""

    mixers: str = KEPT  # of the layers from bottom to top, repeated up to n_layers: "kept", or the family of the mixer
    mixer_settings: tuple[str, ...] = ()  # settings of these mixers, as FAMILY.KEY=VALUE; others follow the source

    def __post_init__(self) -> None:
        cast(Any, super()).__post_init__()
        for family in {*words(self)} - {KEPT}:
            mixer_config(self, family)
        for text in self.mixer_settings:
            known = text.partition(".")[0] in _named(self.mixers)
            require(known, f"mixer_settings={text!r} must begin with a family in mixers={self.mixers!r}")


def _named(mixers: str) -> list[str]:
    """Returns the words in a pattern, without their counts."""
    return [part.partition("*")[0] for part in mixers.split()]


def words(config: Any) -> list[str]:
    """Returns the word of each layer: `KEPT`, or the family of its mixer. Raises `ConfigError`."""
    if not hasattr(config, "n_layers"):
        raise ConfigError(f"mixers={config.mixers!r} needs a source with n_layers")
    known = _named(config.mixers)
    for word in {*known} - {KEPT}:
        try:
            mixer_class(word)
        except LmzooError as error:
            raise ConfigError(f"mixers={config.mixers!r}: {error}") from error
    return pattern(config.mixers, config.n_layers, known or [KEPT], name="mixers")


def mixer_class(family: str) -> type[Decoder]:
    """Returns the class of a family whose mixer can be transplanted. Raises `UnknownModelError` or `ConfigError`."""
    cls = registry.model_class(family)
    if not issubclass(cls, Decoder):
        raise ConfigError(f"the mixer of {family} cannot be transplanted: its model has no decoder frame")
    return cls


def mixer_config(config: Any, family: str) -> Any:
    """Returns the config of the family of a mixer, in the model of `config`. Raises `ConfigError`.

    Settings that are not in `mixer_settings` follow the source: all of its settings if the family is the same, else
    the width, the number and the width of its heads (also of keys and values), and a few more.
    """
    cls = mixer_class(family).config_class
    known = {field.name for field in fields(cast(Any, cls))}
    own = {field.name for field in fields(TransplantFields)}
    source = {name: value for name, value in configs.to_dict(config).items() if name not in own}
    if type(config).source_family != family:
        width, heads = (source.get(name) for name in ("d_model", "n_heads"))
        head_dim = source.get("head_dim") or (width // heads if width and heads else None)
        sizes = {"head_dim": head_dim, "key_dim": head_dim, "value_dim": head_dim}
        followed = {name: source[name] for name in FOLLOWED if name in source}
        source = {
            **{name: value for name, value in {**followed, **sizes}.items() if name in known and value is not None},
            **{name: source[name] for name in ("vocab_size", "d_model") if name in source},
        }
    mine = [text.partition(".")[2] for text in config.mixer_settings if text.partition(".")[0] == family]
    try:
        return configs.build(cls, {**source, **configs.parse_overrides(mine)})
    except ConfigError as error:
        raise ConfigError(f"the mixer of {family}: {error}") from error


def make_mixer(config: Any, family: str) -> Layer:
    """Returns a new mixer for the model of `config`: the one in the first block of a model of the family.

    Raises `ConfigError` for a family whose mixer cannot stand alone.
    """
    cls, settings = mixer_class(family), mixer_config(config, family)
    frame = cls.__new__(cls)  # without the embeddings, the head and the other blocks
    LanguageModel.__init__(frame, settings)
    try:
        mixer = slot_of(frame.block(settings, 0)).mixer
    except ConfigError as error:
        raise ConfigError(f"the mixer of {family} cannot be transplanted: its first block {error}") from error
    if isinstance(mixer, (CrossLayerAttention, SharedAttention, SharedBlock)):
        raise ConfigError(f"the mixer of {family} cannot be transplanted: it reads what its own model leaves for it")
    return mixer


class Transplanted:
    """The part of the derived classes that their source lacks. The mixers are put in when the source is built."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        found = words(config)
        for layer, (word, slot) in enumerate(zip(found, slots_of(cast(Any, self)), strict=True)):
            if word == KEPT:
                continue
            if isinstance(slot, ConfigError):
                raise ConfigError(f"layer {layer} of {type(config).source_family} {slot}")
            slot.put(make_mixer(config, word))

    @property
    def traits(self) -> Traits:
        """Returns the traits of the source, with those that follow from the layers."""
        blocks, given = cast(Any, self).blocks, cast(Any, super()).traits
        families = {*words(cast(Any, self).config)} - {KEPT}
        if not families:
            return given
        return replace(
            given,
            extrapolates=given.extrapolates and all(mixer_class(family).extrapolates for family in families),
            receptive_field=stack.reach(blocks),
            state_growth=cast(StateGrowth, stack.state_growth(blocks)),
            chooses=stack.chooses(blocks),
        )

    def new_parts(self) -> list[Layer]:
        """Returns the transplanted mixers, from bottom to top."""
        places = zip(words(cast(Any, self).config), slots_of(cast(Any, self)), strict=True)
        return [slot.mixer for word, slot in places if word != KEPT and not isinstance(slot, ConfigError)]


@cache
def transplanted(source: type[LanguageModel]) -> type[LanguageModel]:
    """Returns the family derived from `source`, a registered class: `registry.model_class` finds it by its name."""
    name = f"{source.__name__}Transplant"
    place = {"__module__": source.__module__, "__doc__": f"{source.__name__} with transplanted mixers."}
    plain: Mapping[str, Any] = {}
    variants = (plain, *getattr(source.config_class, "checked", ()))
    facts = {
        "source_family": source.family,
        # Without its own mixers, the source has settings without effect: the checks look at them, too.
        "checked": tuple({**changes, "mixers": KEPT, "mixer_settings": ()} for changes in variants),
    }
    config = type(f"{source.config_class.__name__}Transplant", (TransplantFields, source.config_class), place | facts)
    config_class = cast(type[ModelConfig], dataclass(frozen=True, kw_only=True)(config))
    members = {**place, "config_class": config_class, "family": source.family + registry.TRANSPLANT, "source": source}
    return cast(type[LanguageModel], type(name, (Transplanted, source), members))
