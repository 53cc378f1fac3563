"""The check of what layers offer: form, freshness, causality, and the weights and experts in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, offers, subject
from lmzoo.conformance.layer_calls import LayerCall
from lmzoo.conformance.measure import FLOAT64_ROUNDING
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


def test_offers_asks_without_gradients() -> None:
    through_numpy = model(weights(lambda w: torch.from_numpy(w.numpy())))
    assert offers.offers(subject(through_numpy)) == "2 layers offer attention.weights"


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


class CarryingAttention(OfferingAttention):
    """Scales its input if an earlier layer was asked in this forward pass, as a value in a context can tell."""

    asked: ClassVar[list[int]] = []

    def offers(self, x_BTD: Tensor, position: int) -> Values:
        self.asked.append(self.layer)
        return super().offers(x_BTD, position)

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        if self.layer == 0:
            self.asked.clear()
        return super().forward(x_BTD * (1 + len(self.asked)), cache, position)


def test_offers_finds_what_asking_tells_later_layers() -> None:
    class Model(Offering):
        attention_class = CarryingAttention

    with pytest.raises(Fault, match="a forward pass in which layers are asked what they offer is off by"):
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


B, T, E = 5, 7, 4  # the values below are looked at without a model


def require_form(name: str, value: Tensor) -> None:
    offers._require_form("it", name, value, T, B)


@pytest.mark.parametrize(
    ("name", "low", "rest"),
    [("gates.decay", -1, ()), ("gates.reset", 0, (3,)), ("router.probabilities", 0, (E,)), ("chunks.start", 0, ())],
)
def test_require_form_allows_a_range_and_its_rounding(name: str, low: int, rest: tuple[int, ...]) -> None:
    for end, outwards in ((low, -FLOAT64_ROUNDING), (1, FLOAT64_ROUNDING)):
        value = torch.full((B, T, *rest), 0.5, dtype=torch.float64)
        value[0, 1] = end + outwards
        require_form(name, value)
        value[0, 1] = end + 2 * outwards
        with pytest.raises(Fault, match="it must lie in"):
            require_form(name, value)


@pytest.mark.parametrize(
    ("name", "shape", "is_right"),
    [
        ("gates.decay", (B, T), True),
        ("gates.decay", (B, T, 2, 3), True),
        ("gates.decay", (B,), False),
        ("gates.reset", (B, T, 2, 3), False),
        ("gates.branch", (B, T, 2, 3), True),
        ("gates.branch", (B, T, 2, 4), False),
    ],
)
def test_require_form_compares_each_axis(name: str, shape: tuple[int, ...], is_right: bool) -> None:
    if is_right:
        require_form(name, torch.zeros(shape))
    else:
        with pytest.raises(Fault, match="has the shape"):
            require_form(name, torch.zeros(shape))


def test_require_form_looks_at_single_values() -> None:
    value = torch.zeros(B, T, 2)
    value[1, 2, 0] = torch.inf
    with pytest.raises(Fault, match="is not finite"):
        require_form("gates.write", value)
    weights_BTHS = torch.zeros(B, T, 2, T)
    weights_BTHS[0, 3, 1, 3] = 0.1
    require_form("attention.weights", weights_BTHS)
    weights_BTHS[0, 3, 1, 4] = 0.1
    with pytest.raises(Fault, match="is not 0 for a position later"):
        require_form("attention.weights", weights_BTHS)


class ScalingExperts(nn.Module):
    """Multiplies each token by the chosen rows of `up`; other parameters look like those of experts and are none."""

    active: ClassVar[dict[str, float]] = {"up": 0.5, "unused": 0.5, "shared": 1.0, "frozen": 1.0}

    def __init__(self, chosen_TK: Tensor) -> None:
        super().__init__()
        self.chosen_TK = chosen_TK
        self.up, self.unused = (nn.Parameter(torch.ones(E, 3)) for _ in range(2))
        self.shared = nn.Parameter(torch.ones(1, 3))
        self.frozen = nn.Parameter(torch.ones(E, 3), requires_grad=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * self.up[self.chosen_TK].sum(dim=1) * self.shared[0] * self.frozen.sum(dim=0)


def require_router(used_TK: Tensor, **values: Tensor) -> None:
    x_BTD = torch.tensor([0.0, 1.0, 2.0]).expand(2, len(used_TK), 3)
    named = {f"router.{name}": value for name, value in values.items()}
    offers._require_router(LayerCall("it", ScalingExperts(used_TK), (x_BTD,)), named)


def test_require_router_finds_a_token_whose_probabilities_do_not_sum_to_1() -> None:
    p_BTE = torch.full((2, T, E), 1 / E, dtype=torch.float64)
    chosen_TK = torch.zeros(T, 1, dtype=torch.int64)
    p_BTE[1, 2, 0] += offers.PARALLEL / 2
    require_router(chosen_TK, probabilities=p_BTE)
    p_BTE[1, 2, 0] += offers.PARALLEL
    with pytest.raises(Fault, match="do not sum to 1"):
        require_router(chosen_TK, probabilities=p_BTE)


@pytest.mark.parametrize("chosen", [[-1, 1, 2], [E, 1, 2], [0, 1, 0]])
def test_require_router_finds_a_token_with_an_expert_that_it_cannot_choose(chosen: list[int]) -> None:
    chosen_BTK = torch.tensor([[[1, 2, 3], chosen]])
    with pytest.raises(Fault, match=r"must hold different numbers in \[0, 4\)"):
        require_router(chosen_BTK[0], probabilities=torch.full((1, 2, E), 1 / E), chosen=chosen_BTK)


def test_require_router_compares_the_experts_at_two_positions() -> None:
    used_TK = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3], [2, 0]])
    chosen_BTK = torch.stack([used_TK, (used_TK + 1) % E])  # the first row is measured
    p_BTE = torch.full((2, T, E), 1 / E)
    require_router(used_TK, chosen=chosen_BTK)
    require_router(used_TK, probabilities=p_BTE, chosen=chosen_BTK)
    for t in (T - 1, T // 2):
        changed_BTK = chosen_BTK.clone()
        changed_BTK[0, t] = (used_TK[t] + 1) % E
        with pytest.raises(Fault, match=f"at position {t}, router.chosen"):
            require_router(used_TK, probabilities=p_BTE, chosen=changed_BTK)


class Reading(nn.Module):
    """Reads the input with given weights; head h at position t is then multiplied by `scale_TH`."""

    def __init__(self, weights_THS: Tensor, scale_TH: Tensor) -> None:
        super().__init__()
        self.weights_THS, self.scale_TH = weights_THS, scale_TH

    def forward(self, x_BTD: Tensor) -> Tensor:
        v_BSHK = x_BTD.unflatten(-1, (self.scale_TH.shape[1], -1))
        y_BTHK = torch.einsum("ths,bshk->bthk", self.weights_THS, v_BSHK) * self.scale_TH[..., None]
        return y_BTHK.flatten(2)


def weights_of(size_T: int) -> Tensor:
    """Returns weights (T, H, S) of two heads, which sum to 1."""
    generator = torch.Generator().manual_seed(0)
    w_HTS = torch.rand(2, size_T, size_T, dtype=torch.float64, generator=generator).tril()
    return (w_HTS / w_HTS.sum(dim=-1, keepdim=True)).transpose(0, 1)


def require_used(offered_THS: Tensor, used_THS: Tensor, scale_TH: Tensor | None = None) -> None:
    size_T = len(used_THS)
    scale_TH = torch.ones(size_T, 2, dtype=torch.float64) if scale_TH is None else scale_TH
    x_BTD = torch.rand(2, size_T, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    offers._require_used(LayerCall("it", Reading(used_THS, scale_TH), (x_BTD,)), "w", offered_THS)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-5, 1e-5), (1.0, 1e-5)])
def test_require_used_does_not_depend_on_the_size_of_the_output(scales: tuple[float, float]) -> None:
    w_THS, scale_TH = weights_of(T), torch.tensor(scales, dtype=torch.float64).expand(T, 2)
    require_used(w_THS, w_THS, scale_TH)
    with pytest.raises(Fault, match="does not read values with the weights in w"):
        require_used(w_THS**2, w_THS, scale_TH)
    with pytest.raises(Fault, match="reads values with other weights than w of head 0, of which they are multiples"):
        require_used(w_THS / 2, w_THS, scale_TH)


@pytest.mark.parametrize("t", [T - 1, T // 2])
def test_require_used_looks_at_two_positions(t: int) -> None:
    w_THS = weights_of(T)
    offered_THS = w_THS.clone()
    offered_THS[t] **= 2
    with pytest.raises(Fault, match=f"at position {t} does not read values"):
        require_used(offered_THS, w_THS)


def test_require_used_finds_one_head_with_other_weights() -> None:
    w_THS = weights_of(T)
    offered_THS = torch.stack([w_THS[:, 0], w_THS[:, 1] ** 2], dim=1)
    with pytest.raises(Fault, match=f"at position {T // 2} does not read values"):
        require_used(offered_THS, w_THS)


def test_require_used_passes_over_positions_that_read_no_more_positions_than_heads() -> None:
    w_THS, scale_TH = weights_of(3), torch.ones(3, 2, dtype=torch.float64)
    scale_TH[1, 0] = 0.0  # a gate closes a head
    require_used(w_THS, w_THS, scale_TH)
    with pytest.raises(Fault, match="at position 2 does not read values"):
        require_used(w_THS**2, w_THS, scale_TH)


def test_gradients_inside_are_real_and_by_position() -> None:
    x_TD = torch.randn(T, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grads_TF = offers._gradients_inside(x_TD.clone().square().real.sum(), T)
    assert grads_TF.dtype == torch.float64
    assert (grads_TF == 2 * x_TD.real[:, :1]).all(dim=0).any()
