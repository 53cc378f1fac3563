"""Settings that have no effect above some value."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lmzoo.configs import require_between
from lmzoo.conformance import Fault, subject
from lmzoo.conformance.saturation import require_unbounded
from lmzoo.model import LanguageModel
from tests.museum.base import MuseumConfig, Transformer
from tests.museum.exhibits import at_most_twelve_layers, window_of_at_most_eight
from tests.museum.sound import period_of_layers


def test_require_unbounded_finds_a_limit() -> None:
    windowed = next(form for form in subject(window_of_at_most_eight.MODEL).varied() if "window" in form.changes)
    with pytest.raises(Fault, match="window=24 and window=48 give the same model, and smaller values do not"):
        require_unbounded(windowed, "window")
    with pytest.raises(Fault, match="n_layers=16 and n_layers=17"):
        require_unbounded(subject(at_most_twelve_layers.MODEL), "n_layers")


@pytest.mark.parametrize(("model", "name"), [(Transformer, "n_layers"), (period_of_layers.MODEL, "every")])
def test_require_unbounded_accepts_what_deeper_models_show(model: type[LanguageModel], name: str) -> None:
    require_unbounded(subject(model), name)


def test_require_unbounded_accepts_a_limit_of_the_config() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Limited(MuseumConfig):
        def __post_init__(self) -> None:
            super().__post_init__()
            require_between(self, "n_layers", 1, 12)

    class Model(at_most_twelve_layers.MODEL):
        config_class = Limited

    require_unbounded(subject(Model), "n_layers")
