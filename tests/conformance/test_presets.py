"""Presets that cannot be built. No exhibit of the museum: its family would stay in the registry for other tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo import registry
from lmzoo.conformance import Fault, subject
from lmzoo.conformance.presets import preset_numbers, require_presets, widest_preset
from lmzoo.conformance.settings import other_models
from lmzoo.conformance.training import initial_loss
from lmzoo.errors import ConfigError
from lmzoo.layers.init import normal
from tests.museum.base import MuseumConfig, Transformer


@pytest.fixture(autouse=True)
def _own_models_removed() -> Iterator[None]:
    """Removes the models of this file from the registry; families that a test was the first to import stay."""
    yield
    for name in [name for name, cls in registry._classes.items() if cls.__module__ == __name__]:
        del registry._registered_with[registry._classes.pop(name)]


def test_require_presets_names_the_preset_and_the_rule() -> None:
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


@dataclass(frozen=True, kw_only=True)
class RoundsConfig(MuseumConfig):
    n_rounds: int = 1  # how often the features are mapped after the last block


class Rounds(Transformer):
    """Maps the features in several rounds; gradients pass through the last `LEARNED` of them."""

    config_class = RoundsConfig
    LEARNED = 4

    def __init__(self, config: RoundsConfig) -> None:
        super().__init__(config)
        self.map = nn.Linear(config.d_model, config.d_model)

    def features(self, idx_BT: Tensor, state: Any = None) -> Any:
        x_BTD, state = super().features(idx_BT, state)
        for i in range(self.config.n_rounds, 0, -1):
            x_BTD = x_BTD if i <= self.LEARNED else x_BTD.detach()
            x_BTD = x_BTD + torch.tanh(self.map(x_BTD))
        return x_BTD, state


def test_preset_numbers_holds_the_largest_count_of_presets_and_no_width() -> None:
    presets = {
        "a": {"model": {"n_rounds": 3, "d_model": 48}},
        "b": {"model": {"n_rounds": 6, "n_layers": 9}},
        "c": {"model": {"n_rounds": 33}},  # so large a number is a width
    }
    lmzoo.register_model("museum-rounds", presets=presets)(Rounds)
    assert [config.n_rounds for config in preset_numbers(subject(Rounds))] == [6]
    with pytest.raises(Fault, match=r"with n_rounds=6, the gradient along a random direction is .* at 8 tokens"):
        other_models(subject(Rounds))


def test_other_models_accepts_a_number_of_rounds_that_all_get_a_gradient() -> None:
    presets = {"a": {"model": {"n_rounds": 4}}}
    lmzoo.register_model("museum-rounds", presets=presets)(Rounds)
    other_models(subject(Rounds))


class Tied(Transformer):
    """Its head is the table of the tokens: the logits grow with the width, as the square root."""

    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config)
        self.head.init = normal(0.04)
        self.head.init_parameters()


def test_initial_loss_looks_at_the_widest_preset() -> None:
    presets = {
        "wide": {"model": {"d_model": 512, "n_heads": 8}},
        "narrow": {"model": {"d_model": 64}},
        "huge": {"model": {"d_model": 4096}},
        "large_vocabulary": {"model": {"d_model": 640, "vocab_size": 50_000}},
    }
    lmzoo.register_model("museum-tied", presets=presets)(Tied)
    found = widest_preset(subject(Tied))
    assert found is not None
    assert found.name == "museum-tied.wide"
    assert found.config.d_model == 512
    with pytest.raises(
        Fault, match=r"museum-tied\.wide with d_model=512: the loss of a fresh model is .* than 5 % from"
    ):
        initial_loss(subject(Tied))


class Plain(Transformer):
    """Has initial weights that suit every width."""


def test_initial_loss_accepts_weights_that_suit_the_width() -> None:
    lmzoo.register_model("museum-plain", presets={"wide": {"model": {"d_model": 512}}})(Plain)
    initial_loss(subject(Plain))
