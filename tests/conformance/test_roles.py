"""Checks of the roles of parameters."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import check_model
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent


class Extra(nn.Module):
    """Adds, multiplies or maps by a parameter of the given shape."""

    parameter_roles: ClassVar[dict[str, str]] = {}

    def __init__(self, shape: tuple[int, ...], use: str) -> None:
        super().__init__()
        self.use = use
        self.table = nn.Parameter(torch.ones(shape))

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.use == "add":
            return x_BTD + self.table[:, : x_BTD.shape[1]]
        if self.use == "scale":
            return x_BTD @ (self.table * torch.linspace(0.5, 1.0, self.table.shape[1]))
        return x_BTD * self.table if self.use == "multiply" else x_BTD @ self.table


class WithExtra(Recurrent):
    shape: ClassVar[tuple[int, ...]] = (16, 16)
    use: ClassVar[str] = "map"

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.extra = Extra(self.shape, self.use)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return self.extra(x_BTD), state


@pytest.mark.parametrize(
    ("shape", "use", "says"),
    [
        ((16, 16), "map", ""),
        ((16, 16), "scale", ""),  # a matrix with scaled columns is still a matrix
        ((1, 24, 16), "add", "extra.table (1, 24, 16) is added to activations"),
        ((1, 16), "multiply", "extra.table (1, 16) is a vector"),
        ((9, 16), "multiply", "extra.table (9, 16) is multiplied with activations elementwise"),
    ],
)
def test_roles_finds_a_table_that_is_no_matrix(
    shape: tuple[int, ...], use: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WithExtra, "shape", shape)
    monkeypatch.setattr(WithExtra, "use", use)
    (result,) = check_model(WithExtra, only=["roles"]).results
    assert result.passed == (not says), result.saw
    assert says in result.saw
    monkeypatch.setattr(Extra, "parameter_roles", {"table": "vector"})
    (declared,) = check_model(WithExtra, only=["roles"]).results
    assert declared.passed
    assert declared.saw.startswith("2 declared roles; "), "of the table and of the embedding"


def test_roles_refuses_a_role_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extra, "parameter_roles", {"table": "weight"})
    (result,) = check_model(WithExtra, only=["roles"]).results
    assert result.saw.startswith("extra.table has the role 'weight', which must be one of matrix, ")
