"""The check that torch.compile captures the forward pass."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model
from lmzoo.state import State
from tests.museum.base import Transformer


def test_compiles_gives_the_reason_in_one_line() -> None:
    class Branches(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (x_BTD if float(x_BTD.detach().sum()) > 1e9 else x_BTD + 0.0), state

    result = check_model(Branches, only=["compiles"]).results[0]
    assert result.saw.startswith("torch.compile(fullgraph=True) cannot capture forward: ")
    assert "\n" not in result.saw


def test_compiles_compares_the_values() -> None:
    class Scales(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (1.001 * x_BTD if torch.compiler.is_compiling() else x_BTD), state

    result = check_model(Scales, only=["compiles"]).results[0]
    assert result.saw.startswith("the compiled forward is off by")


def test_compiles_accepts_a_negative_number_to_the_power_of_a_tensor() -> None:
    """The backend "eager" of torch 2.13 writes (-1.0) ** n as -1.0 ** n."""

    class Alternates(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (-1.0) ** torch.arange(x_BTD.shape[2]) * x_BTD, state

    assert check_model(Alternates, only=["compiles"]).passed


def test_compiles_logs_nothing_about_declared_breaks_in_the_graph(caplog: pytest.LogCaptureFixture) -> None:
    assert check_model("hnet", only=["compiles"]).passed
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]
