"""Checks of training: the initial loss, the gradients, and overfitting one batch."""

from __future__ import annotations

import pytest
import torch

from lmzoo.conformance import check_model
from lmzoo.conformance.training import best_loss
from tests.museum.base import MuseumConfig, Transformer


def test_best_loss_is_the_entropy_given_the_visible_tokens() -> None:
    idx = torch.tensor([[0, 1, 0, 1]])
    targets = torch.tensor([[1, 0, 1, 2]])
    assert best_loss(idx, targets, None) == pytest.approx(0)
    assert best_loss(idx, targets, 1) == pytest.approx(2 * 0.6931 / 4, abs=1e-4)  # after 1 comes 0 or 2


def test_initial_loss_names_the_loss_and_ln_v() -> None:
    class Large(Transformer):
        def init_weights(self, generator: torch.Generator | None = None) -> None:
            super().init_weights(generator)
            with torch.no_grad():
                self.head.weight.mul_(100)

    result = check_model(Large, only=["initial_loss"]).results[0]
    assert not result.passed
    assert "more than 5 % from ln V = 2.565" in result.saw


def test_gradients_counts_the_parameters_without_one() -> None:
    class Unused(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.spare = torch.nn.Parameter(torch.zeros(3))

    result = check_model(Unused, only=["gradients"]).results[0]
    assert result.saw == "spare (3,) gets no gradient: nothing uses it, three steps in a row (1 such parameters)"
