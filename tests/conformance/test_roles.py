"""Checks of the roles of parameters."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import check_model, roles, subject
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent


def test_roles_by_id_has_each_parameter() -> None:
    model = subject("gpt2").model()
    role_of = roles.roles_by_id(model)
    assert role_of.keys() == {id(parameter) for parameter in model.parameters()}
    assert role_of[id(model.get_parameter("tokens.weight"))] == "embedding"
    assert set(role_of.values()) == {"embedding", "matrix", "vector"}


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
    if use == "map":
        assert declared.saw.startswith(
            "extra.table (16, 16) is a map between features, but its role is 'vector', which"
        )
        return
    assert declared.passed
    assert declared.saw.startswith("2 declared roles; "), "of the table and of the embedding"


def test_roles_refuses_a_role_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Extra, "parameter_roles", {"table": "weight"})
    (result,) = check_model(WithExtra, only=["roles"]).results
    assert result.saw.startswith("extra.table has the role 'weight' in parameter_roles, which must be one of")


@pytest.mark.parametrize(
    ("equation", "place", "is_map"),
    [
        ("bti,oi->bto", 1, True),
        ("oi,bti->bto", 0, True),
        ("bthk,hkv->bthv", 1, True),
        ("...i,oi->...o", 1, True),
        ("bthk,hk->bth", 1, False),  # each feature has a weight of its own
        ("btd,nd->btnd", 1, False),  # nothing is summed
        ("bdtw,dw->bdt", 1, False),
    ],
)
def test_sums_and_makes_tells_a_map_from_elementwise_weights(equation: str, place: int, *, is_map: bool) -> None:
    assert roles._sums_and_makes(equation, place) is is_map


class LooksUp(Extra):
    """Adds rows of the table, by their number."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.table[torch.arange(x_BTD.shape[1]) % len(self.table)]


def test_roles_finds_rows_that_are_looked_up_in_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WithExtra, "shape", (9, 16))
    monkeypatch.setitem(globals(), "Extra", LooksUp)
    (result,) = check_model(WithExtra, only=["roles"]).results
    assert result.saw.startswith("extra.table (9, 16) is a table of rows that are looked up by index")


class ExpandedStart(Extra):
    """Reads a learned matrix as memory of the past, expanded for the batch, and the same in an einsum."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        memory = self.table.expand(len(x_BTD), -1, -1)
        return x_BTD @ memory + torch.einsum("btd,bde->bte", x_BTD, memory)


def test_a_state_before_the_first_token_may_be_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpandedStart, "parameter_roles", {"table": "vector"})
    monkeypatch.setitem(globals(), "Extra", ExpandedStart)
    (result,) = check_model(WithExtra, only=["roles"]).results
    assert result.passed, result.saw
