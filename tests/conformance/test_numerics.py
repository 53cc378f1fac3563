"""Gradients in float64, and bfloat16 with a router."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model, numerics, subject
from lmzoo.conformance.choices import Choices
from lmzoo.conformance.numerics import _slope_error
from lmzoo.model import LMOutput
from lmzoo.state import State
from tests.museum.base import Cell, Recurrent


class RoutedCell(Cell):
    """A gate computed in float32, as routers often are."""

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        gate_BTD = torch.sigmoid(y_BTD.float()).to(y_BTD.dtype)
        return y_BTD * gate_BTD, state


class Routed(Recurrent):
    cell_class = RoutedCell


def test_float64_gradients_names_the_line_that_computes_in_float32() -> None:
    result = check_model(Routed, only=["float64_gradients"]).results[0]
    assert not result.passed
    assert "something is computed in float32 there, at test_numerics.py:" in result.saw


def test_float64_gradients_says_how_well_they_agree() -> None:
    result = check_model(Recurrent, only=["float64_gradients"]).results[0]
    assert result.passed
    assert float(result.saw.rpartition(" ")[2]) < 1e-4


class Elsewhere(Recurrent):
    """Changes one position in `every` in bfloat16, as a router does that chooses another expert."""

    every = 1

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if idx_BT.shape[1] > 1 and (x_BTD.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")):
            moved_T = torch.arange(idx_BT.shape[1]) % self.every == 0
            x_BTD = torch.where(moved_T[:, None], -x_BTD, x_BTD)
        return x_BTD, state


@pytest.mark.parametrize(("every", "passes"), [(6, True), (3, False)])
def test_bfloat16_allows_a_quarter_of_the_positions_to_differ(
    every: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Elsewhere, "every", every)
    result = check_model(Elsewhere, only=["bfloat16"]).results[0]
    assert result.passed == passes, result.saw


def test_float64_gradients_finds_a_wrong_gradient_of_every_parameter() -> None:
    class Halved(Recurrent):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
            return LMOutput(logits_BTV, None if loss is None else (loss + loss.detach()) / 2)

    result = check_model(Halved, only=["float64_gradients"]).results[0]
    assert result.saw.startswith("the gradient of head.weight, and of 12 before it, from tokens.weight on, is wrong: ")


def test_slope_error_is_of_second_order_and_leaves_the_parameters_unchanged() -> None:
    checked = subject(Recurrent)
    model, idx = checked.model().double(), checked.tokens(2, 5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(idx, idx).loss.backward()
    directions = [(name, p, torch.ones_like(p) / p.numel() ** 0.5) for name, p in model.named_parameters()]
    off, gradient, measured = _slope_error(model, idx, idx, directions, Choices(model))
    assert off < 1e-8
    assert measured == pytest.approx(gradient, rel=1e-8)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=1e-12)


def test_bfloat16_says_the_larger_of_two_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    offs = iter([0.02, 0.03, 0.01])
    monkeypatch.setattr(numerics, "require_near", lambda *_: next(offs))
    result = check_model(Recurrent, only=["bfloat16"]).results[0]
    assert result.saw == "off by 0.03 of the largest logit at most positions, decoding by 0.01"
