"""The check of transferable projections: their form, and that the output reads them as their names say."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, subject, transferable
from lmzoo.layers.linear import Linear
from lmzoo.layers.projections import Projection
from lmzoo.model import LanguageModel
from tests.museum.base import MuseumConfig
from tests.museum.offering import Offering, OfferingAttention

Parts = dict[str, Projection]
H, K, D = 2, 8, 16


class BiasedAttention(OfferingAttention):
    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.qkv = Linear(config.d_model, 3 * config.d_model)


def model(
    change: Callable[[OfferingAttention, Parts], Parts], base: type[OfferingAttention] = OfferingAttention
) -> type[LanguageModel]:
    """Returns a model whose attention declares what `change` makes of its declaration."""

    class Changed(base):  # type: ignore[misc, valid-type]
        def transferable(self) -> Parts:
            return change(self, super().transferable())

    class Model(Offering):
        attention_class: ClassVar = Changed

    return Model


def one(name: str, change: Callable[[Projection], Projection]) -> Callable[[OfferingAttention, Parts], Parts]:
    return lambda _, parts: {**parts, name: change(parts[name])}


def weight(change: Callable[[nn.Parameter], nn.Parameter]) -> Callable[[Projection], Projection]:
    return lambda part: Projection(change(part.weight), part.bias)  # type: ignore[arg-type]


def swapped(a: str, b: str) -> Callable[[OfferingAttention, Parts], Parts]:
    return lambda _, parts: {**parts, a: parts[b], b: parts[a]}


def test_transferable_says_what_is_declared() -> None:
    assert transferable.transferable(subject(Offering)) == "2 mixers, of q, k, v, out"
    assert transferable.transferable(subject(model(lambda *_: {}))) == "nothing is declared"
    assert transferable.transferable(subject("bigram")) == "nothing is declared"
    few = model(lambda _, parts: {name: parts[name] for name in ("v", "out")})
    assert transferable.transferable(subject(few)) == "2 mixers, of v, out"
    biased = model(lambda _, parts: parts, BiasedAttention)
    assert transferable.transferable(subject(biased)) == "2 mixers, of q, k, v, out"


FAULTS: list[tuple[Callable[[OfferingAttention, Parts], Parts], str]] = [
    (lambda _, parts: {**parts, "gate": parts["q"]}, "gate in `transferable` of .*: the names are q, k, v, out"),
    (
        one("q", weight(lambda w: w.flatten(0, 1))),
        r"has the shape \(16, 16\): it must be \(heads, width of a head, D\)",
    ),
    (one("out", weight(lambda w: w[None])), r"has the shape \(1, 2, 8, 16\)"),
    (one("v", weight(lambda w: w.clone())), "v in `transferable` of .* is no view of a parameter"),
    (lambda _, parts: {**parts, "k": parts["q"]}, "k in `transferable` of .* shares parameters with q"),
    (one("q", weight(lambda w: w[..., :8])), "must have all 16 inputs of the linear map in its last axis"),
    (one("out", weight(lambda w: w.flip(0).flip(0).clone())), "is no view"),
    (one("out", weight(lambda w: w[..., 1:])), "must have all 16 outputs of the linear map in its last axis"),
    (swapped("q", "k"), "an output depends on q .* as far as 18 tokens back, and queries act at their own token"),
    (swapped("q", "v"), "an output depends on q .* as far as 18 tokens back"),
    (swapped("k", "v"), "depends on head 0 of v .* in 1 of 8 directions"),
    (one("v", weight(lambda w: w.flatten(0, 1).unflatten(0, (K, H)).mT)), "inputs of the linear map"),
    (
        one("v", weight(lambda w: w.flatten(0, 1).unflatten(0, (K, H)).transpose(0, 1))),
        "head 0 of the output depends on head 1 of v .*, and should on head 0",
    ),
    (
        one("out", weight(lambda w: w.flatten(0, 1).unflatten(0, (K, H)).transpose(0, 1))),
        "head 0 of the output depends on head 1 of",
    ),
]


@pytest.mark.parametrize(("change", "says"), FAULTS, ids=range(len(FAULTS)))
def test_transferable_finds(change: Callable[[OfferingAttention, Parts], Parts], says: str) -> None:
    with pytest.raises(Fault, match=says):
        transferable.transferable(subject(model(change)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one("k", lambda part: Projection(part.weight)), "k .* lacks the bias that its parameters have"),
        (one("k", lambda part: Projection(part.weight, part.bias.clone())), "its bias must be a view of"),  # type: ignore[union-attr]
        (lambda _, parts: {**parts, "k": Projection(parts["k"].weight, parts["v"].bias)}, "its bias must be a view of"),
        (lambda _, parts: {**parts, "out": Projection(parts["out"].weight, parts["q"].bias)}, "has a bias of its own"),
    ],
)
def test_transferable_compares_biases(change: Callable[[OfferingAttention, Parts], Parts], says: str) -> None:
    with pytest.raises(Fault, match=says):
        transferable.transferable(subject(model(change, BiasedAttention)))


class RectifiedAttention(OfferingAttention):
    """Values behind a ReLU, and a gate that closes head 0 at every second position."""

    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        return super().attend(q_BTHK, k_BSHK, v_BSHK.relu(), allowed_TS)

    def merge(self, y_BHTK: Tensor) -> Tensor:
        closed_T = torch.arange(y_BHTK.shape[2]) % 2 == 0
        return super().merge(torch.cat([y_BHTK[:, :1].masked_fill(closed_T[:, None], 0.0), y_BHTK[:, 1:]], dim=1))


def test_transferable_may_be_closed_by_activations_and_gates() -> None:
    rectified = model(lambda _, parts: parts, RectifiedAttention)
    assert transferable.transferable(subject(rectified)) == "2 mixers, of q, k, v, out"


def test_transferable_is_nothing_if_the_projection_is_more_than_a_weight() -> None:
    adapted = next(form for form in subject("zamba2").varied() if "adapts_attention" in form.name)
    assert transferable.transferable(adapted).endswith("of q, k, v, out"), "of Mamba-2; the attention has none"
