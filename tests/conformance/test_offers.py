"""The check of what layers offer: form, freshness, causality, and the weights and experts in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import Fault, offers, subject
from lmzoo.layers.experts import Experts
from lmzoo.model import LanguageModel
from tests.museum.offering import Offering, OfferingAttention

Values = dict[str, Any]


def model(change: Callable[[Tensor, Values], Values]) -> type[LanguageModel]:
    """Returns a model whose attention offers what `change` makes of its input and its values."""

    class Changed(OfferingAttention):
        def offers(self, x_BTD: Tensor, position: int) -> Values:
            return change(x_BTD, super().offers(x_BTD, position))

    class Model(Offering):
        attention_class = Changed

    return Model


def weights(change: Callable[[Tensor], Any]) -> Callable[[Tensor, Values], Values]:
    return lambda _, values: {"attention.weights": change(values["attention.weights"])}


def added(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Values], Values]:
    return lambda x_BTD, values: {**values, name: value(x_BTD)}


def draw(x_BTD: Tensor, values: Values) -> Values:
    torch.rand(1)
    return values


def move(x_BTD: Tensor, values: Values) -> Values:
    x_BTD.add_(1.0)
    return values


def test_offers_says_what_is_offered() -> None:
    assert offers.offers(subject(Offering)) == "2 layers offer attention.weights"
    assert offers.offers(subject("bigram")) == "no layer offers values"


class ClosedAttention(OfferingAttention):
    """Closes head 0 at every second position, and writes to its input."""

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        return super().forward(x_BTD.mul_(1.0), cache, position)

    def merge(self, y_BHTK: Tensor) -> Tensor:
        closed_T = torch.arange(y_BHTK.shape[2]) % 2 == 0
        return super().merge(torch.cat([y_BHTK[:, :1].masked_fill(closed_T[:, None], 0.0), y_BHTK[:, 1:]], dim=1))


class Closed(Offering):
    attention_class = ClosedAttention


def test_offers_may_be_closed_by_a_gate() -> None:
    assert offers.offers(subject(Closed)) == "2 layers offer attention.weights"


FAULTS: list[tuple[Callable[[Tensor, Values], Values], str]] = [
    (added("attention.wieghts", lambda x: x), "attention.wieghts of blocks.0.attention .*: the names are attention.we"),
    (weights(lambda w: w.transpose(1, 2)), r"has the shape \(5, 2, 19, 19\) instead of \(B, T, H, S\) with B=5, T=19"),
    (weights(lambda w: w[..., :5]), r"has the shape \(5, 19, 2, 5\) instead of \(B, T, H, S\)"),
    (weights(lambda w: w.mean(dim=2)), r"has the shape \(5, 19, 19\) instead"),
    (added("chunks.start", lambda x: x.sigmoid()), r"chunks.start .* has the shape \(5, 19, 16\) instead of \(B, T\)"),
    (added("gates.decay", lambda x: x[0]), r"gates.decay .* has the shape \(19, 16\) instead of \(B, T, ...\)"),
    (added("router.chosen", lambda x: x), "has the dtype torch.float64 instead of int64"),
    (added("gates.write", lambda x: x.long()), "has the dtype torch.int64 instead of a floating point type"),
    (added("gates.write", lambda x: x / 0), "gates.write of .* is not finite"),
    (added("gates.decay", lambda x: 3 + 0 * x), r"reaches from 3 to 3: it must lie in \[-1, 1\]"),
    (added("gates.reset", lambda x: 0 * x - 1), r"must lie in \[0, 1\]"),
    (added("router.probabilities", lambda x: x.sigmoid()), "router.probabilities of .* do not sum to 1"),
    (added("gates.write", lambda x: x - x.mean(dim=1, keepdim=True)), "changes by .* with the tokens from 9 of 19 on"),
    (weights(lambda w: w + 1e-3), "is not 0 for a position later than the one that reads"),
    (weights(lambda w: w**2), "does not read values with the weights in attention.weights"),
    (weights(lambda w: w.mean(dim=2, keepdim=True)), "does not read values with the weights"),
    (weights(lambda w: 0.5 * w), "reads values with other weights than attention.weights of head 0, of which they are"),
    (draw, "uses torch's global random state"),
    (move, "changes its input when it is asked"),
]


@pytest.mark.parametrize(("change", "says"), FAULTS, ids=range(len(FAULTS)))
def test_offers_finds(change: Callable[[Tensor, Values], Values], says: str) -> None:
    with pytest.raises(Fault, match=says):
        offers.offers(subject(model(change)))


def test_offers_finds_what_asking_leaves_behind() -> None:
    class Scaling(OfferingAttention):
        def offers(self, x_BTD: Tensor, position: int) -> Values:
            values = super().offers(x_BTD, position)
            self.out.weight.mul_(1.5)
            return values

    class Model(Offering):
        attention_class = Scaling

    with pytest.raises(Fault, match="after layers were asked what they offer, the model is off by"):
        offers.offers(subject(Model))


class KeptForever(OfferingAttention):
    """Offers the weights of the first text that it was asked about."""

    kept: ClassVar[str] = "first"

    def offers(self, x_BTD: Tensor, position: int) -> Values:
        if self.kept not in self.__dict__:
            self.__dict__[self.kept] = super().offers(x_BTD, position)
        return self.__dict__[self.kept]


def test_offers_finds_the_values_of_the_first_text() -> None:
    class Model(Offering):
        attention_class = KeptForever

    with pytest.raises(Fault, match="is another one if the model has read another text"):
        offers.offers(subject(Model))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("router.chosen", lambda e: (e + 1) % 4, "the output depends on the experts"),
        ("router.chosen", lambda e: e + 4, r"must hold different numbers in \[0, 4\)"),
        ("router.chosen", lambda e: e[..., :1].expand_as(e), "must hold different numbers"),
        ("router.weights", lambda w: w[..., :1], "router.weights of .* must have one entry for each in router.chosen"),
    ],
)
def test_offers_compares_the_experts(
    name: str, change: Callable[[Tensor], Tensor], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Experts.offers

    def changed(self: Experts, x_BTD: Tensor) -> Values:
        values = honest(self, x_BTD)
        return {**values, name: change(values[name])}

    monkeypatch.setattr(Experts, "offers", changed)
    with pytest.raises(Fault, match=says):
        offers.offers(subject("mixtral"))
