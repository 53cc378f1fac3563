"""The declared receptive field, tried with usual and with large weights (more in test_causality.py, test_masks.py)."""

from __future__ import annotations

import pytest

from lmzoo.conformance import Fault, receptive, subject
from lmzoo.model import Traits
from tests.museum.base import Recurrent, Transformer
from tests.museum.exhibits import history_ignored, window_outweighed_by_large_scores


def test_receptive_field_says_how_far_it_reaches() -> None:
    assert receptive.receptive_field(subject(Recurrent)).startswith("logits depend on the last 24 tokens")
    windowed = next(form for form in subject(Transformer).varied() if "window" in form.changes)
    assert receptive.receptive_field(windowed).endswith("none beyond 9")


def test_receptive_field_finds_a_past_that_is_forgotten_and_a_window_that_is_open() -> None:
    with pytest.raises(Fault, match="depend on no token more than 4 back"):
        receptive.receptive_field(subject(history_ignored.MODEL))
    tried = subject(window_outweighed_by_large_scores.MODEL)
    windowed = next(form for form in tried.varied() if "window" in form.changes)
    with pytest.raises(Fault, match="with vectors 1000 times as large"):
        receptive.receptive_field(windowed)


def test_receptive_field_names_the_nearest_token_that_is_declared_out_of_reach() -> None:
    class SaysTwo(Transformer):
        @property
        def traits(self) -> Traits:
            return Traits(extrapolates=True, receptive_field=2)

    with pytest.raises(Fault, match=r"depend on the token 2 back \("):
        receptive.receptive_field(subject(SaysTwo))
