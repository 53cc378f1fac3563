"""Checks for side effects."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.model import LanguageModel
from lmzoo.state import State
from tests.museum.base import MuseumConfig, Recurrent, Transformer
from tests.museum.sound import counted_pairs


def test_same_seed_finds_weights_drawn_from_elsewhere() -> None:
    class Clock(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.register_buffer("start", torch.tensor(random.random()))

    result = check_model(Clock, only=["same_seed"]).results[0]
    assert result.saw.startswith("start, drawn twice from one seed, is off by")


class Remembers(Recurrent):
    """Keeps something of a short batch of so many rows, and adds it to what follows."""

    rows, level = 2, 0.0

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        y_BTD = x_BTD + self.level
        if len(idx_BT) == self.rows and idx_BT.shape[1] < 9:
            self.level = x_BTD.mean().item()
        return y_BTD, state


@pytest.mark.parametrize("rows", [2, 1])
def test_same_seed_uses_the_model_with_other_rows_in_between(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remembers, "rows", rows)
    result = check_model(Remembers, only=["same_seed"]).results[0]
    assert result.saw.startswith("the same forward again is off by")


@pytest.mark.parametrize("model", [Transformer, counted_pairs.MODEL])
def test_changed_weights_accepts_sound_models(model: type[LanguageModel]) -> None:
    report = check_model(model, only=["changed_weights"])
    assert report.passed, str(report)


class Constants(Recurrent):
    """Every parameter has a few values that no seed changes."""

    n_values = 3

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_((torch.arange(parameter.numel()) % self.n_values).view_as(parameter))


@pytest.mark.parametrize(("n_values", "passes"), [(2, True), (3, False)])
def test_seeds_takes_parameters_of_two_values_for_constants(
    n_values: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Constants, "n_values", n_values)
    result = check_model(Constants, only=["seeds"]).results[0]
    assert result.passed == passes, result.saw
    assert result.saw.startswith("two seeds give the same weights") == (not passes)


def test_global_state_names_the_generator_that_was_used() -> None:
    class Draws(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            random.random()
            return super().features(idx_BT, state)

    before = random.getstate()
    try:
        result = check_model(Draws, only=["global_state"]).results[0]
    finally:
        random.setstate(before)
    assert result.saw.startswith("a pass in eval mode draws from the global random state of random")


def test_global_state_runs_the_model_in_train_mode() -> None:
    class SeedsInTraining(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            if self.training:
                torch.manual_seed(0)
            return super().features(idx_BT, state)

    result = check_model(SeedsInTraining, only=["global_state"]).results[0]
    assert result.saw.startswith("in train mode forward sets torch's global seed")
