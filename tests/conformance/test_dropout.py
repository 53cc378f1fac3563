"""Dropout written by hand: what it keeps must be divided by 1 - p."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.conformance import Fault, subject
from lmzoo.conformance.dropout import _Draws, require_scaled
from lmzoo.state import State
from tests.museum.base import Recurrent

KEPT = 0.75


def by_rand(x_BTD: Tensor) -> Tensor:
    return torch.rand_like(x_BTD) >= 1 - KEPT


def by_rand_below(x_BTD: Tensor) -> Tensor:
    return torch.rand(x_BTD.shape[0], 1, x_BTD.shape[2]) < KEPT


def by_chances(x_BTD: Tensor) -> Tensor:
    return torch.bernoulli(torch.full_like(x_BTD, KEPT))


def by_table(x_BTD: Tensor) -> Tensor:
    return torch.tensor([1.0, 1.0, 1.0, 0.0])[(4 * torch.rand_like(x_BTD)).long()]  # a draw lies below 1


def in_place(x_BTD: Tensor) -> Tensor:
    return torch.empty_like(x_BTD).bernoulli_(KEPT)


def dropped_in_place(x_BTD: Tensor) -> Tensor:
    return 1 - torch.empty_like(x_BTD).bernoulli_(1 - KEPT)


def uniform_in_place(x_BTD: Tensor) -> Tensor:
    return torch.empty_like(x_BTD).uniform_() < KEPT


def beside_torchs_own(x_BTD: Tensor) -> Tensor:
    return F.dropout(torch.ones_like(x_BTD), 1 - KEPT) * by_rand(x_BTD)


def by_head(x_BTD: Tensor) -> Tensor:
    kept_BH = torch.rand(len(x_BTD), 4) < KEPT
    return kept_BH.repeat_interleave(x_BTD.shape[2] // 4, dim=1)[:, None]


def for_each_row(x_BTD: Tensor) -> Tensor:
    return torch.rand(len(x_BTD), 1, 1) < KEPT


def for_each_token(x_BTD: Tensor) -> Tensor:
    return torch.rand(x_BTD.shape[:2])[..., None] < KEPT


MASKS = [by_rand, by_rand_below, by_table, by_chances, by_head]
MASKS += [in_place, dropped_in_place, uniform_in_place, beside_torchs_own]


def require(mask: object, scale: float) -> None:
    """Runs the check on a model whose features are multiplied by `scale` and by a mask that keeps `KEPT` of them."""

    class Dropping(Recurrent):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return x_BTD * mask(x_BTD) * scale if self.training else x_BTD, state  # type: ignore[operator]

    checked = subject(Dropping)
    require_scaled(checked.model(), checked.tokens(2, 5))


@pytest.mark.parametrize("mask", MASKS)
def test_require_scaled_finds_what_is_kept_as_it_is(mask: object) -> None:
    require(mask, 1 / KEPT)
    with pytest.raises(Fault, match=r"must be divided by 1 - p"):
        require(mask, 1.0)


def test_require_scaled_accepts_torchs_own_dropout_and_draws_for_rows_and_tokens() -> None:
    require(for_each_token, 1.0)
    require(for_each_row, 1.0)
    require(lambda x_BTD: F.dropout(torch.ones_like(x_BTD), 1 - KEPT), 1.0)


def test_require_scaled_accepts_draws_without_an_effect() -> None:
    require(lambda x_BTD: torch.rand_like(x_BTD) >= 0.0, 1.0)


@pytest.mark.parametrize(
    ("shape", "is_for_features"),
    [
        ((2, 1, 16), True),
        ((2, 4), True),  # heads of each row
        ((11,), True),
        ((10,), False),
        ((3, 2), False),
        ((2, 5), False),
        ((2, 1, 1), False),
        ((4,), False),  # layers
    ],
)
def test_draws_for_features_are_told_by_their_shape(shape: tuple[int, ...], is_for_features: bool) -> None:
    assert _Draws(0.0, torch.Size((2, 5)))._is_for_features(torch.Size(shape)) == is_for_features
