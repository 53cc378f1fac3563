"""The share of experts that a token uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import Fault, subject
from lmzoo.conformance.usage import require_declared_use
from lmzoo.model import LanguageModel
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent
from tests.museum.exhibits.share_of_experts_not_declared import RoutedCell
from tests.museum.sound import experts_with_their_own_rows


def stack(share: float) -> type[LanguageModel]:
    """Returns a model with three experts in one parameter, of which a token uses one."""

    class Declaring(RoutedCell):
        declared: ClassVar = {"maps_EDD": share}

    class Stacked(Recurrent):
        cell_class = Declaring

    return Stacked


class Expert(nn.Linear):
    active: dict[str, float]


class ListedCell(experts_with_their_own_rows.RoutedCell):
    share = 1.0

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        for expert in self.experts:
            expert.active = {"weight": self.share}  # type: ignore[assignment]


def listed(share: float) -> type[LanguageModel]:
    """Returns a model with three experts in a list of modules."""

    class Declaring(ListedCell):
        pass

    Declaring.share = share

    class Listed(Recurrent):
        cell_class = Declaring

    return Listed


@pytest.mark.parametrize("made", [stack, listed])
@pytest.mark.parametrize("share", [2 / 3, 1 / 6])
def test_require_declared_use_finds_another_share(made: Callable[[float], type[LanguageModel]], share: float) -> None:
    require_declared_use(subject(made(1 / 3)))
    with pytest.raises(
        Fault, match=rf"a token uses 1 of 3 matrices in cells\.0\.experts\..*, .* counts is {share:.3g}"
    ):
        require_declared_use(subject(made(share)))


class LastLogit(nn.Linear):
    def forward(self, x_BTD: Tensor) -> Tensor:
        logits_BTV = super().forward(x_BTD)
        return logits_BTV * (torch.arange(self.out_features) == self.out_features - 1)


def test_require_declared_use_looks_at_every_logit() -> None:
    class Model(stack(2 / 3)):  # type: ignore[misc]
        def __init__(self, config: CellConfig) -> None:
            super().__init__(config)
            self.head = LastLogit(config.d_model, config.vocab_size, bias=False)

    with pytest.raises(Fault, match="a token uses 1 of 3 matrices"):
        require_declared_use(subject(Model))


def test_require_declared_use_needs_a_declaration_of_a_stack_and_not_of_a_list() -> None:
    require_declared_use(subject(listed(1.0)))
    with pytest.raises(Fault, match="counts is 1;"):
        require_declared_use(subject(stack(1.0)))


def test_require_declared_use_knows_nothing_of_matrices_that_every_token_uses() -> None:
    class EachCell(RoutedCell):
        def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
            x_BTD, state = super(RoutedCell, self).forward(x_BTD, state)
            maps = self.experts.maps_EDD
            assert isinstance(maps, Tensor)
            return x_BTD + torch.einsum("btd,edf->btf", x_BTD, maps), state

    class Each(Recurrent):
        cell_class = EachCell

    require_declared_use(subject(Each))
