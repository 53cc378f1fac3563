"""Checks that each preset of a family is a model that can be built."""

from __future__ import annotations

from lmzoo import configs, registry
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.errors import ConfigError


def require_presets(subject: Subject) -> int:
    """Raises `Fault` for a preset that the config refuses; returns the number of presets.

    The presets that a registered class inherits are those of another config, and are not looked at.
    """
    family = registry.families().get(subject.cls.family) if registry.is_registered(subject.cls) else None
    if family is None:
        return 0
    parents = (registry.families().get(getattr(base, "family", "")) for base in subject.cls.__mro__[1:])
    inherited = [preset for parent in parents if parent is not None for preset in parent.presets.values()]
    own = [preset for preset in family.presets.values() if preset not in inherited]
    for preset in own:
        try:
            configs.build(subject.cls.config_class, {"vocab_size": subject.config.vocab_size, **preset.model})
        except ConfigError as error:
            raise Fault(
                f"the preset {family.name}.{preset.name} cannot be built: {error}; look at presets.toml, or at the "
                "presets given to register_model"
            ) from error
    return len(own)
