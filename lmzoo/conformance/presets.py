"""The presets of a family as subjects of checks: each must be a model that can be built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress

from lmzoo import configs, registry
from lmzoo.conformance.report import Fault
from lmzoo.conformance.sizes import LARGE, TINY
from lmzoo.conformance.tiny import Subject
from lmzoo.errors import ConfigError
from lmzoo.model import ModelConfig
from lmzoo.registry import Preset

# The widest preset whose loss at the start is measured: its number of features, its vocabulary, and the sizes it keeps.
WIDEST, VOCABULARY = 768, 256
KEPT_WIDTHS = {"d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "d_state"}
MOST_PARTS = 32  # larger whole numbers are widths, not numbers of parts or rounds
SIZES = {*LARGE.fields, *LARGE.options, "n_layers", "vocab_size", "context_length"}  # not taken over from presets


def require_presets(subject: Subject) -> int:
    """Raises `Fault` for a preset that the config refuses; returns the number of presets."""
    own = own_presets(subject)
    for preset in own:
        try:
            configs.build(subject.cls.config_class, {"vocab_size": subject.config.vocab_size, **preset.model})
        except ConfigError as error:
            raise Fault(
                f"the preset {subject.cls.family}.{preset.name} cannot be built: {error}; look at presets.toml, or at "
                "the presets given to register_model"
            ) from error
    return len(own)


def own_presets(subject: Subject) -> list[Preset]:
    """Returns the presets of a registered class, without those that it inherits: they are of another config."""
    family = registry.families().get(subject.cls.family) if registry.is_registered(subject.cls) else None
    if family is None:
        return []
    parents = (registry.families().get(getattr(base, "family", "")) for base in subject.cls.__mro__[1:])
    inherited = [preset for parent in parents if parent is not None for preset in parent.presets.values()]
    return [preset for preset in family.presets.values() if preset not in inherited]


def preset_numbers(subject: Subject) -> Iterator[ModelConfig]:
    """Yields the tiny config with one whole number of a preset each, such as a number of rounds; sizes are left out.

    Of several values of one field it is the largest.
    """
    largest: dict[str, int] = {}
    fields = {field.name for field in dataclasses.fields(subject.config)}
    for preset in own_presets(subject):
        for name, value in preset.model.items():
            if type(value) is int and value <= MOST_PARTS and name in fields - SIZES:
                largest[name] = max(value, largest.get(name, value))
    for name, value in largest.items():
        with suppress(ConfigError):
            config = dataclasses.replace(subject.config, **{name: value})
            if config != subject.config:
                yield config


def widest_preset(subject: Subject) -> Subject | None:
    """Returns the form of the widest preset of at most `WIDEST` features, with few layers and tokens; None without one.

    Initial weights that suit a narrow model may be too large for a wide one. Presets for a large vocabulary are left
    out: they begin near the uniform distribution over that one.
    """
    narrow = {name: size for name, size in TINY.fields.items() if name not in KEPT_WIDTHS}
    sizes = dataclasses.replace(TINY, vocab_size=VOCABULARY, fields=narrow)
    widths = {preset.name: preset.model.get("d_model", 0) for preset in own_presets(subject)}
    for preset in sorted(own_presets(subject), key=lambda preset: -widths[preset.name]):
        small = preset.model.get("vocab_size", VOCABULARY) <= VOCABULARY
        if small and getattr(subject.config, "d_model", WIDEST) < widths[preset.name] <= WIDEST:
            with suppress(ConfigError):
                return Subject(subject.cls, preset.model, f"{subject.cls.family}.{preset.name}", sizes)
    return None
