"""The check of transferable projections: their form, and that the output reads them as their names say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, subject, transferable
from lmzoo.layers.linear import Linear
from lmzoo.layers.projections import Projection, split_rows
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
    of_several_kinds = model(one("v", weight(lambda w: w[None])))
    assert transferable.transferable(subject(of_several_kinds)) == "2 mixers, of q, k, v, out"


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


class UnreadAttention(OfferingAttention):
    def __init__(self, config: MuseumConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.unread = Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        self.unread(x_BTD)
        return super().forward(x_BTD, cache, position)

    def transferable(self) -> Parts:
        return {**super().transferable(), **split_rows(self.unread, v=(H, K))}


def test_transferable_finds_a_projection_without_effect() -> None:
    with pytest.raises(Fault, match=r"v in `transferable` of .* has no effect on the heads of the output"):
        transferable.transferable(subject(model(lambda _, parts: parts, UnreadAttention)))


class TwiceAttention(OfferingAttention):
    def forward(self, x_BTD: Tensor, cache: Any, position: int) -> tuple[Tensor, Any]:
        self.qkv(x_BTD)
        return super().forward(x_BTD, cache, position)


def test_transferable_does_not_measure_a_map_that_runs_twice() -> None:
    twice = model(swapped("q", "v"), TwiceAttention)
    assert transferable.transferable(subject(twice)) == "2 mixers, of q, k, v, out"


def test_features_are_rows_or_columns_of_the_whole_matrix() -> None:
    whole = torch.zeros(3 + 6 * 4)[3:].view(6, 4)
    rows = transferable._features("it", whole[2:].unflatten(0, (2, 2)), whole, of_output=False)
    assert rows.tolist() == [[2, 3], [4, 5]]
    columns = transferable._features("it", whole.unflatten(1, (2, 2)).permute(1, 2, 0), whole, of_output=True)
    assert columns.tolist() == [[0, 1], [2, 3]]
    square = torch.zeros(4, 4)
    with pytest.raises(Fault, match="must have all 4 outputs of the linear map in its last axis"):
        transferable._features("it", square.unflatten(0, (2, 2)), square, of_output=True)


def test_require_bias_compares_memory_shape_and_rows() -> None:
    linear = nn.Linear(4, 6)
    linear.bias = nn.Parameter(torch.zeros(2 + 6)[2:])
    rows = torch.tensor([[2, 3], [4, 5]])
    transferable._require_bias("it", linear.bias[2:].view(2, 2), linear, rows)
    transferable._require_bias("it", linear.bias, linear, None)
    elsewhere = torch.zeros(2 + 6)[4:].view(2, 2)
    for bias in (elsewhere, linear.bias[2:], linear.bias[1:5].view(2, 2)):
        with pytest.raises(Fault, match="it: its bias must be a view of the bias of the same rows"):
            transferable._require_bias("it", bias, linear, rows)


def test_reach_is_the_distance_of_the_farthest_effect() -> None:
    effect_HKTLNK = torch.zeros(2, 3, 5, 1, 2, 4, dtype=torch.float64)
    assert transferable._reach(effect_HKTLNK) is None
    effect_HKTLNK[1, 2, 1, 0, 0, 3] = 1e-7
    effect_HKTLNK[0, 0, 3, 0, 1, 0] = -2e-7
    effect_HKTLNK[0, 0, 0, 0, 0, 0] = 1e-18  # rounding
    assert transferable._reach(effect_HKTLNK) == 3


def effect(reach: int = 0, *, heads: int = H, size_T: int = 2, kinds: int = 1) -> Tensor:
    """Returns an effect (H, K, T, L, N, K) of N = 2 heads on `heads`, of the last token and of one before it."""
    made = torch.zeros(heads, K, size_T, kinds, 2, K, dtype=torch.float64)
    for h in range(heads):
        made[h, :, -1, :, h * 2 // heads] = made[h, :, -1 - reach, :, h * 2 // heads] = torch.eye(K)[:, None]
    return made


REACHES: list[tuple[dict[str, int], str]] = [
    ({"q": 0, "k": 18, "v": 18}, ""),
    ({"q": 10, "k": 18, "v": 18}, ""),
    ({"q": 18, "k": 18, "v": 18}, "depends on q .* as far as 18 tokens back, and queries act at their own token"),
    ({"q": 7, "k": 7, "v": 7}, ""),
    ({"q": 18}, ""),
    ({"q": 0, "k": 8, "v": 8}, ""),
    ({"q": 0, "k": 7, "v": 8}, "depends on k .* as far as 7 tokens back, and on other keys and values as far as 8"),
]


@pytest.mark.parametrize(("reaches", "says"), REACHES)
def test_require_heads_compares_how_far_queries_keys_and_values_act(reaches: dict[str, int], says: str) -> None:
    effects = {name: effect(reach, size_T=19) for name, reach in reaches.items()}
    if not says:
        transferable._require_heads("it", effects)
    else:
        with pytest.raises(Fault, match=says):
            transferable._require_heads("it", effects)


def require_own(effect_HKTLNK: Tensor, *, is_value: bool = False) -> None:
    transferable._require_own_heads("it", effect_HKTLNK, is_value=is_value)


def of_rank(rank: int) -> Tensor:
    return (torch.arange(K) < rank).double().diag()


def test_require_own_heads_divides_heads_into_groups() -> None:
    require_own(effect(heads=4))
    with pytest.raises(Fault, match="head 0 of the output depends on head 1 of it, and should on head 0"):
        require_own(effect(heads=4).flip(0))
    with pytest.raises(Fault, match="it has 2 heads, which must divide the 3 heads of the output"):
        require_own(effect(heads=3))


@pytest.mark.parametrize("size", [1.0, 1e-7])
def test_require_own_heads_allows_the_effect_of_a_norm(size: float) -> None:
    """A norm over all heads has an effect through its mean and its scale."""
    for kind in (0, 1):
        made = effect(kinds=2)
        made[0, :, -1, kind, 1] = of_rank(2) + 1e-13 * of_rank(K)
        require_own(size * made)
        made[0, :, -1, kind, 1] = of_rank(3)
        with pytest.raises(Fault, match="head 0 of the output depends on head 1 of it, and should on head 0"):
            require_own(size * made)


def test_require_own_heads_demands_an_effect_of_the_own_head() -> None:
    closed, in_one_kind, other = effect(), effect(kinds=2), effect()
    closed[0] = 0.0
    require_own(closed, is_value=True)
    in_one_kind[:, :, :, 1] = 0.0
    require_own(in_one_kind)
    other[0] = 0.0
    other[0, :, -1, 0, 1] = of_rank(2)
    with pytest.raises(Fault, match="head 0 of the output does not depend on head 0 of it"):
        require_own(other)


def test_require_own_heads_demands_half_of_the_directions_of_a_value() -> None:
    made = effect()
    made[0, :, :, 0, 0] = of_rank(4)[:, None]
    require_own(made, is_value=True)
    made[0, :, -1, 0, 0] = of_rank(1)  # of all tokens, the one with most directions counts
    require_own(made, is_value=True)
    made[0, :, :, 0, 0] = of_rank(3)[:, None]
    require_own(made)
    with pytest.raises(Fault, match="head 0 of the output depends on head 0 of it in 3 of 8 directions"):
        require_own(made, is_value=True)
    transferable._require_heads("it", {"k": made, "v": effect()})
    with pytest.raises(Fault, match=r"of v in `transferable` of it in 3 of 8 directions"):
        transferable._require_heads("it", {"k": effect(), "v": made})
