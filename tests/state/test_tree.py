"""Tests of states as values: cloning and selecting never reach into another state, and rows and bytes are counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lmzoo import state
from lmzoo.errors import InputError
from lmzoo.state import Constant, TimeBuffer
from tests.state.trees import Pair, numbers, tree


def test_clone_shares_no_memory() -> None:
    original = tree()
    copy = state.clone(original)
    for tensor in state.tensors(copy):
        tensor.fill_(-1)
    for before, after in zip(state.tensors(tree()), state.tensors(original), strict=True):
        assert torch.equal(before, after)
    assert copy["position"] == 3
    assert isinstance(copy["layers"][1], Pair)


def test_select_takes_rows_in_order_and_repeatedly() -> None:
    chosen = state.select(tree(), [1, 0, 1])
    pair = chosen["layers"][1]
    assert pair.right.entries()[:, 0, 0].tolist() == [100, 0, 100]
    grown = pair.right.append(numbers(3, 1, 3))
    assert grown.entries()[1, :, 0].tolist() == [0, 1, 2, 103]
    assert state.select(tree(), [])["layers"][0][0].shape == (0, 2, 1)


def test_nbytes_counts_the_entries_in_reach() -> None:
    assert state.nbytes(()) == state.capacity_bytes(()) == 0
    halves = {"a": torch.zeros(2, 3), "b": [TimeBuffer.empty(2, 10, 4, dtype=torch.bfloat16)]}
    assert state.nbytes(halves) == state.capacity_bytes(halves) == 24 + 160, "an empty buffer: what it has room for"
    halves["b"][0] = halves["b"][0].append(numbers(0, 3))
    assert (state.nbytes(halves), state.capacity_bytes(halves)) == (24 + 48, 24 + 160)


@pytest.mark.parametrize(("room", "empty"), [(3, 3), (8, 8), (15, 8), (1000, 8)])
def test_nbytes_of_a_window(room: int, empty: int) -> None:
    buffer = TimeBuffer.empty(1, room, 1, window=8)
    assert state.nbytes(buffer) == 4 * empty
    for length in range(1, 30):
        buffer = buffer.append(numbers(length, 1, 1))
        assert state.nbytes(buffer) == 4 * min(length, 8) == 4 * buffer.entries().numel()
        assert state.capacity_bytes(buffer) == 4 * buffer.data.shape[1]
    assert state.capacity_bytes(buffer) == 4 * 16


def test_clone_refuses_what_is_no_state() -> None:
    with pytest.raises(InputError, match="a state cannot hold a set"):
        state.clone({"bad": {1, 2}})


@pytest.mark.parametrize(
    "rows",
    [
        [2],
        [-1],
        [0.5],
        ["a"],
        [[0]],
        "01",
        3,
        [True],
        [1 << 70],
        torch.zeros(2, device="meta").long(),
        torch.zeros(2).long().to_sparse(),
    ],
)
def test_select_refuses_rows_that_do_not_exist(rows: Any) -> None:
    with pytest.raises(InputError, match="rows"):
        state.select(tree(), rows)


def test_rows_counts_the_first_dimension() -> None:
    assert state.rows(tree()) == 2
    assert state.rows({"position": 3, "layers": [None, (TimeBuffer.empty(5, 1),)]}) == 5
    assert state.rows([None, 3, Constant(torch.zeros(4))]) is None
