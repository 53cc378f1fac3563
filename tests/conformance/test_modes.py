"""Train mode and eval mode: what a pass in train mode may leave behind."""

from __future__ import annotations

import pytest

from lmzoo.conformance import Fault, modes, subject
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
