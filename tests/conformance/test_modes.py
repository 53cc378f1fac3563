"""Train mode and eval mode: in what they may differ, and what a pass in train mode may leave behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, check_model, modes, subject
from lmzoo.model import Traits
from lmzoo.state import State
from tests.museum.base import Recurrent, Transformer
from tests.museum.exhibits import dropout_mask_kept, noise_drawn_once, running_scale_of_activations
from tests.museum.sound import bias_moved_by_the_load, power_iteration


@pytest.mark.parametrize("sound", [bias_moved_by_the_load, power_iteration])
def test_train_mode_accepts_what_holds_nothing_of_a_batch_but_choices(sound: object) -> None:
    modes.train_mode(subject(sound.MODEL))  # type: ignore[attr-defined]


def test_train_mode_accepts_dropout_of_the_config() -> None:
    modes.train_mode(subject("gpt2"))


def test_train_mode_names_what_is_kept() -> None:
    for module, says in (
        (running_scale_of_activations, "such as statistics; a pass has changed size"),
        (dropout_mask_kept, "repeats the dropout of the first"),
        (noise_drawn_once, "drawn once and kept on the module"),
    ):
        with pytest.raises(Fault, match=says):
            modes.train_mode(subject(module.MODEL))


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
