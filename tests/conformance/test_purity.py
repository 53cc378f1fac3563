"""Checks for side effects, and for equal results in train and eval mode."""

from __future__ import annotations

import logging
import random

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.model import LanguageModel, Traits
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


def test_compiles_gives_the_reason_in_one_line() -> None:
    class Branches(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (x_BTD if float(x_BTD.detach().sum()) > 1e9 else x_BTD + 0.0), state

    result = check_model(Branches, only=["compiles"]).results[0]
    assert result.saw.startswith("torch.compile(fullgraph=True) cannot capture forward: ")
    assert "\n" not in result.saw


def test_compiles_compares_the_values() -> None:
    class Scales(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (1.001 * x_BTD if torch.compiler.is_compiling() else x_BTD), state

    result = check_model(Scales, only=["compiles"]).results[0]
    assert result.saw.startswith("the compiled forward is off by")


def test_compiles_accepts_a_negative_number_to_the_power_of_a_tensor() -> None:
    """The backend "eager" of torch 2.13 writes (-1.0) ** n as -1.0 ** n."""

    class Alternates(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (-1.0) ** torch.arange(x_BTD.shape[2]) * x_BTD, state

    assert check_model(Alternates, only=["compiles"]).passed


def test_train_mode_finds_a_difference_between_the_modes() -> None:
    class Scales(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (1.01 * x_BTD if self.training else x_BTD), state

    assert check_model(Scales, only=["train_mode"]).failures == ["train_mode"]


def test_train_mode_takes_declared_noise_that_differs_between_seeds() -> None:
    class Noisy(Recurrent):
        @property
        def traits(self) -> Traits:
            return Traits(extrapolates=True, state_growth="constant", random_in_training=True)

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return x_BTD + (torch.rand(()) if self.training else 0.0), state

    result = check_model(Noisy, only=["train_mode"]).results[0]
    assert result.passed, result.saw


def test_train_mode_repeats_a_run_from_its_seed() -> None:
    generator = torch.Generator()  # its state goes on from run to run

    class Noisy(Recurrent):
        @property
        def traits(self) -> Traits:
            return Traits(extrapolates=True, state_growth="constant", random_in_training=True)

        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return x_BTD + (torch.rand((), generator=generator) if self.training else 0.0), state

    result = check_model(Noisy, only=["train_mode"]).results[0]
    assert result.saw.startswith("train mode, again with the same seed, is off by ")


def test_compiles_logs_nothing_about_declared_breaks_in_the_graph(caplog: pytest.LogCaptureFixture) -> None:
    assert check_model("hnet", only=["compiles"]).passed
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]
