"""Checks of training: the initial loss, the gradients, and overfitting one batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.conformance.training import best_loss
from lmzoo.model import LanguageModel
from lmzoo.state import State
from tests.museum.base import Learned, MuseumConfig, Transformer
from tests.museum.exhibits import declared_untrainable_and_is_trained, untrainable_without_a_declaration
from tests.museum.sound import counted_pairs


def test_best_loss_is_the_entropy_given_the_visible_tokens() -> None:
    idx = torch.tensor([[0, 1, 0, 1]])
    targets = torch.tensor([[1, 0, 1, 2]])
    assert best_loss(idx, targets, None) == pytest.approx(0)
    assert best_loss(idx, targets, 1) == pytest.approx(2 * 0.6931 / 4, abs=1e-4)  # after 1 comes 0 or 2
    idx, targets = torch.tensor([[1, 0], [2, 0]]), torch.tensor([[0, 3], [0, 4]])
    assert best_loss(idx, targets, 1) == pytest.approx(2 * 0.6931 / 4, abs=1e-4)
    assert best_loss(idx, targets, 2) == pytest.approx(0)  # the token before tells 3 and 4 apart


def test_initial_loss_names_the_loss_and_ln_v() -> None:
    class Large(Transformer):
        def init_weights(self, generator: torch.Generator | None = None) -> None:
            super().init_weights(generator)
            with torch.no_grad():
                self.head.weight.mul_(100)

    result = check_model(Large, only=["initial_loss"]).results[0]
    assert not result.passed
    assert "more than 5 % from ln V = 2.565" in result.saw


def test_initial_loss_finds_one_seed_of_three_that_is_off() -> None:
    class LargeForSeed1(Transformer):
        def init_weights(self, generator: torch.Generator | None = None) -> None:
            super().init_weights(generator)
            if generator is not None and generator.initial_seed() == 1:
                with torch.no_grad():
                    self.head.weight.mul_(100)

    assert check_model(LargeForSeed1, only=["initial_loss"]).failures == ["initial_loss"]


def test_initial_loss_takes_a_short_context() -> None:
    report = check_model(Learned(MuseumConfig(vocab_size=13, context_length=8)), only=["initial_loss"])
    assert report.passed, str(report)


def test_gradients_counts_the_parameters_without_one() -> None:
    class Unused(Transformer):
        def __init__(self, config: MuseumConfig) -> None:
            super().__init__(config)
            self.spare = torch.nn.Parameter(torch.zeros(3))

    result = check_model(Unused, only=["gradients"]).results[0]
    assert result.saw == "spare (3,) gets no gradient: nothing uses it, three steps in a row (1 such parameters)"


def test_gradients_compares_the_declaration_with_the_parameters_in_both_directions() -> None:
    def saw(model: type[LanguageModel]) -> str:
        return check_model(model, only=["gradients"]).results[0].saw

    assert saw(declared_untrainable_and_is_trained.MODEL).startswith(
        "traits says trainable=False, but tokens.weight would be trained (requires_grad=True)"
    )
    assert saw(untrainable_without_a_declaration.MODEL).startswith("no parameter can be trained: ")
    assert saw(counted_pairs.MODEL) == "no parameters to train, as declared"


def test_gradients_finds_a_loss_with_a_gradient_in_a_model_that_declares_none() -> None:
    class Hidden(counted_pairs.MODEL):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return x_BTD.detach().requires_grad_() * 2, state

    result = check_model(Hidden, only=["gradients"]).results[0]
    assert result.saw.startswith("traits says trainable=False, but the loss has a gradient; look at tensors with")
