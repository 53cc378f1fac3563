"""Checks of the loss and of auxiliary losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.losses import auxiliary_loss, cross_entropy
from lmzoo.model import LMOutput
from lmzoo.state import State
from tests.museum.base import Transformer


class Balanced(Transformer):
    form = "right"

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        size = x_BTD.square().mean()
        values = {
            "right": size,
            "vector": size[None],
            "infinite": size / 0,
            "detached": size.detach(),
            "zero": 0 * size,
            "bad gradient": size + (0 * size).sqrt(),
        }
        auxiliary_loss("balance", values[self.form])
        return x_BTD, state


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("right", "balance: finite, with gradients, and not in the reported loss"),
        ("vector", "of shape (1,), and must be a finite scalar"),
        ("infinite", "is inf of shape (), and must be a finite scalar"),
        ("detached", "has no gradient: it is detached, or made of choices"),
        ("zero", "the gradient of auxiliary loss 'balance' is zero for every parameter"),
        ("bad gradient", "the gradient of auxiliary loss 'balance' is not finite"),
    ],
)
def test_auxiliary_needs_a_finite_scalar_with_a_gradient(form: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Balanced, "form", form)
    result = check_model(Balanced, only=["auxiliary"]).results[0]
    assert result.passed == (form == "right")
    assert says in result.saw, result.saw


class TwoAhead(Transformer):
    """A second loss that needs the targets, with a gradient or without."""

    detached = False

    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits_BTV = self.head(x_BTD[:, :-1])
        loss = cross_entropy(logits_BTV, targets[:, 1:])
        return {"two ahead": loss.detach() if self.detached else loss}


@pytest.mark.parametrize("detached", [False, True])
def test_auxiliary_looks_at_extra_losses(detached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoAhead, "detached", detached)
    result = check_model(TwoAhead, only=["auxiliary"]).results[0]
    assert result.passed != detached
    assert ("two ahead: finite" in result.saw) != detached
    assert check_model(TwoAhead, only=["ignored_targets", "micro_batches", "float64_gradients"]).passed


class MixedInTraining(Transformer):
    def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
        logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
        if loss is not None and self.training:
            loss = loss + 0.01
        return LMOutput(logits_BTV, loss)


def test_auxiliary_compares_the_loss_in_train_mode() -> None:
    report = check_model(MixedInTraining, only=["loss_value", "auxiliary"])
    assert report.failures == ["auxiliary"]
    assert report.results[-1].saw.startswith("the loss in train mode is off by")


def test_loss_value_compares_logits_with_and_without_targets() -> None:
    class Other(Transformer):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
            return LMOutput(logits_BTV + 0.01 if targets is None and logits_BTV is not None else logits_BTV, loss)

    result = check_model(Other, only=["loss_value"]).results[0]
    assert result.saw.startswith("logits without targets, against those with them, is off by")


@pytest.mark.parametrize("name", ["loss_value", "ignored_targets", "micro_batches", "chunked_loss"])
def test_loss_checks_find_a_sum_instead_of_a_mean(name: str) -> None:
    class Summed(Transformer):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
            if loss is not None and return_logits:
                loss = loss * torch.as_tensor(len(idx))
            return LMOutput(logits_BTV, loss)

    assert check_model(Summed, only=[name]).failures == [name]


def test_micro_batches_compares_the_loss_too() -> None:
    class CountsRows(Transformer):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
            return LMOutput(logits_BTV, None if loss is None else loss + 0.01 * len(idx))

    result = check_model(CountsRows, only=["micro_batches"]).results[0]
    assert result.saw.startswith("the loss of two micro-batches, weighted by their targets, is off by")


def test_chunked_loss_compares_the_gradients_without_logits() -> None:
    class Detached(Transformer):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
            return LMOutput(logits_BTV, loss if return_logits or loss is None else loss + (loss - loss.detach()))

    result = check_model(Detached, only=["chunked_loss"]).results[0]
    assert "without logits is off by" in result.saw
    assert result.saw.startswith("the gradient of ")


def test_ignored_targets_compares_the_gradients_too() -> None:
    class ThroughIgnored(Transformer):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            logits_BTV, loss = super().forward(idx, targets, return_logits=return_logits)
            if loss is not None and logits_BTV is not None:
                size = logits_BTV.square().mean()
                loss = loss + (size - size.detach())  # a gradient from all rows, and no value
            return LMOutput(logits_BTV, loss)

    result = check_model(ThroughIgnored, only=["ignored_targets"]).results[0]
    assert result.saw.startswith("the gradient of ")
    assert ", when only an ignored row has changed, is off by" in result.saw


@pytest.mark.parametrize("returned", [None, True, False])
def test_chunked_loss_needs_logits_exactly_if_they_are_asked_for(returned: bool | None) -> None:
    class Returns(Transformer):
        def forward(self, idx: Tensor, targets: Tensor | None = None, *, return_logits: bool = True) -> LMOutput:
            return super().forward(idx, targets, return_logits=return_logits if returned is None else returned)

    result = check_model(Returns, only=["chunked_loss"]).results[0]
    assert result.passed == (returned is None)
    says = "the same loss and gradients" if returned is None else "return_logits=False must return no logits, and True"
    assert result.saw.startswith(says)
