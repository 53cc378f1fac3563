"""Layers that share one norm."""

from __future__ import annotations

import pytest
import torch

from lmzoo.layers.attention import Attention
from lmzoo.layers.branches import Branches
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.mlp import MLP
from lmzoo.layers.stack import has_state, reach, state_growth
from tests.helpers import seeded


def context(position: int, T: int) -> Context:
    return Context(position, T, torch.device("cpu"), torch.float32)


def test_branches_add_the_outputs_of_their_layers() -> None:
    attention, mlp = Attention(8, 2, rope=Rope()), MLP(8, 12)
    branches = Branches(attention, mlp)
    x_BTD = torch.randn(2, 5, 8, generator=seeded())
    expected_BTD = attention(x_BTD, None, context(0, 5))[0] + mlp(x_BTD)
    y_BTD, state = branches(x_BTD, None, context(0, 5))
    torch.testing.assert_close(y_BTD, expected_BTD)
    assert state is None


def test_branches_keep_the_states_of_their_layers() -> None:
    branches = Branches(Attention(8, 2, rope=Rope()), MLP(8, 12))
    x_BTD = torch.randn(2, 5, 8, generator=seeded())
    expected_BTD, _ = branches(x_BTD, None, context(0, 5))
    state, pieces = branches.init_state(2, 5, x_BTD), []
    for t in range(5):
        y_B1D, state = branches(x_BTD[:, t : t + 1], state, context(t, 1))
        pieces.append(y_B1D)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected_BTD)
    assert (reach(branches), has_state(branches), state_growth(branches)) == (None, True, "linear")


def test_branches_take_layers_alone() -> None:
    with pytest.raises(TypeError, match="Branches takes layers, not a int"):
        Branches(3)  # type: ignore[arg-type]
