"""Checks that rows of a batch do not depend on each other, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model, subject
from lmzoo.state import State
from tests.museum.base import Attention, Cell, Recurrent, Transformer


class Float32Attention(Attention):
    def attend(self, q_BTHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, allowed_TS: Tensor) -> Tensor:
        return super().attend(q_BTHK.float(), k_BSHK.float(), v_BSHK.float(), allowed_TS).to(q_BTHK.dtype)


class InFloat32(Transformer):
    attention_class = Float32Attention


def test_batch_independence_names_the_line_that_computes_in_float32() -> None:
    (result,) = check_model(InFloat32, only=["batch_independence"]).results
    assert not result.passed
    assert "something is computed in float32 there, at test_batching.py:" in result.saw
    assert "(`.float()`): use `lmzoo.ops.precision.wide`" in result.saw


class SortingCell(Cell):
    """Computes rows in the order of their first value, as experts do: correct, with different rounding."""

    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        order = x_BTD[:, 0, 0].argsort()
        pieces = {name: tensor[order] for name, tensor in state.items()}
        y_BTD, pieces = super().forward(x_BTD[order], pieces)
        back = order.argsort()
        return y_BTD[back], {name: tensor[back] for name, tensor in pieces.items()}


class Sorting(Recurrent):
    cell_class = SortingCell


def test_batch_independence_allows_rows_to_be_computed_in_any_order() -> None:
    report = check_model(Sorting, only=["batch_independence", "causality", "prompt_lengths"])
    assert report.passed, str(report)


class Overflowing(Recurrent):
    """Rows that begin with one token take the place of others, as where an expert has no room left."""

    crowded = 0

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        begins_B = idx_BT[:, 0] == self.crowded
        return torch.where((begins_B.any() & ~begins_B)[:, None, None], 0.0, x_BTD), state


def test_batch_independence_changes_a_neighbor(monkeypatch: pytest.MonkeyPatch) -> None:
    first_B = subject(Overflowing).tokens(4, 9)[:, 0]
    crowded = int(first_B[1] + 1) % 13
    assert crowded not in first_B, "no row of the unchanged batch has it"
    monkeypatch.setattr(Overflowing, "crowded", crowded)
    (result,) = check_model(Overflowing, only=["batch_independence"]).results
    assert result.saw.startswith("a row whose neighbor has changed is off by")


class LeakingDecoder(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        if idx_BT.shape[1] == 1:
            x_BTD = x_BTD + 1e-7 * x_BTD.mean(0, keepdim=True)
        return x_BTD, state


def test_batch_independence_checks_decoding() -> None:
    (result,) = check_model(LeakingDecoder, only=["batch_independence"]).results
    assert "of a batch decoded together, against the rows decoded alone, is off by" in result.saw
    assert "float32" not in result.saw


def test_prompt_lengths_compares_with_each_prompt_alone() -> None:
    class CountsRows(Transformer):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return torch.where(torch.tensor(len(idx_BT) > 1), -x_BTD, x_BTD), state

    result = check_model(CountsRows, only=["prompt_lengths"]).results[0]
    assert result.saw.startswith("a prompt of 2 tokens, continued beside prompts of other lengths, has the token")
