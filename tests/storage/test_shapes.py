"""Tests the comparison of two models by the names and shapes of their tensors."""

from __future__ import annotations

from torch import nn

from lmzoo.storage.shapes import difference


def test_difference_names_the_first_tensor_in_words() -> None:
    small, wide, bare = nn.Linear(2, 3), nn.Linear(2, 4), nn.Linear(2, 3, bias=False)
    assert difference(small, nn.Linear(2, 3)) == ""
    assert difference(small, wide) == "it changes the shape of weight from (3, 2) to (4, 2)"
    assert difference(small, bare) == "it removes bias"
    assert difference(bare, small) == "it adds bias"
