"""Presets that cannot be built. No exhibit of the museum: its family would stay in the registry for other tests."""

from __future__ import annotations

import pytest

import lmzoo
from lmzoo import registry
from lmzoo.conformance import Fault, subject
from lmzoo.conformance.presets import require_presets
from lmzoo.errors import ConfigError
from tests.museum.base import MuseumConfig, Transformer


def test_require_presets_names_the_preset_and_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(registry, "_registered_with", dict(registry._registered_with))

    class Config(MuseumConfig):
        def __post_init__(self) -> None:
            super().__post_init__()
            if self.d_model > 64:
                raise ConfigError(f"d_model={self.d_model} must be at most 64")

    @lmzoo.register_model(
        "museum-wide", presets={"good": {"model": {"d_model": 32}}, "wide": {"model": {"d_model": 65}}}
    )
    class Wide(Transformer):
        config_class = Config

    with pytest.raises(Fault, match=r"preset museum-wide\.wide cannot be built: d_model=65 must be at most 64; "):
        require_presets(subject(Wide))

    @lmzoo.register_model("museum-heir", presets={"one": {"model": {"d_model": 48}}})
    class Heir(Wide):
        """Inherits `museum-wide`'s presets, which it did not choose."""

    assert require_presets(subject(Heir)) == 1
    assert require_presets(subject(Transformer)) == 0, "it is not registered"


def test_require_presets_reads_all_presets_of_a_family() -> None:
    assert require_presets(subject("gpt2")) == len(registry.families()["gpt2"].presets)
